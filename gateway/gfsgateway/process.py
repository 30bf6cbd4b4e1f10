"""The gateway's process: connects to the cluster, listens, and ends in order."""

import asyncio
import logging
import signal
import socket
from typing import Final

from aiohttp import web

from gfsclient.config import load_config
from gfsclient.filesystem import FileSystem
from gfsclient.user import process_user
from gfsgateway import tokens
from gfsgateway.app import Gateway
from gfsgateway.auth import Auth
from gfsgateway.config import GatewayConfig, is_loopback
from gfsgateway.listener import Listener, tls_context
from gfsgateway.rest import uploads
from gfsprotocol.errors import AddressInUse, AvailabilityError, ConfigurationError
from gfsprotocol.settings import read_secret

BACKLOG: Final = 512
CONNECT_PAUSE_SECONDS: Final = 0.5
CANCEL_SECONDS: Final = 2.0
"""How long a request may take to end when it is cancelled."""

log = logging.getLogger(__name__)


class GatewayProcess:
    """A whole gateway in an event loop."""

    def __init__(self, config: GatewayConfig) -> None:
        self._config = config
        self._stopping = asyncio.Event()
        self.port = 0
        """The one it listens on, once started."""

    def stop(self) -> None:
        """Ends :meth:`run`."""
        self._stopping.set()

    async def run(self) -> int:
        """Serves until :meth:`stop`; StartupError if it cannot start."""
        config = self._config
        context = tls_context(config)
        auth = make_auth(config)
        with listen(config) as listener:
            self.port = listener.getsockname()[1]
            files = await self._connect()
            if files is None:
                return 0
            async with files:
                gateway = Gateway(config, files, auth)
                server = Listener(config, gateway)
                runner = web.ServerRunner(server, shutdown_timeout=CANCEL_SECONDS)
                await runner.setup()
                # Who has not said hello yet is no connection: it is let go as one that sends no request.
                listening = await asyncio.get_running_loop().create_server(
                    server,
                    sock=listener,
                    ssl=context,
                    backlog=BACKLOG,
                    ssl_handshake_timeout=None if context is None else config.header_seconds,
                )
                janitor = asyncio.create_task(uploads.expire_for_ever(files, config.upload_keep_seconds))
                scheme = "http" if context is None else "https"
                log.info("the gateway listens on %s://%s:%d", scheme, config.host, self.port)
                try:
                    await self._stopping.wait()
                finally:
                    gateway.is_stopping = True
                    janitor.cancel()
                    await asyncio.gather(janitor, return_exceptions=True)
                    listening.close()
                    await server.drain(config.stop_seconds)
                    await runner.cleanup()
                    await gateway.close()
        log.info("the gateway has stopped")
        return 0

    async def _connect(self) -> FileSystem | None:
        """Waits for the cluster as long as it takes: it may be started after us. None if we are stopped meanwhile."""
        client = load_config(self._config.client_file)
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            while True:
                connecting = asyncio.create_task(
                    FileSystem.connect(client.masters, client.key, user=process_user(), config=client)
                )
                await asyncio.wait({connecting, stopping}, return_when=asyncio.FIRST_COMPLETED)
                if not connecting.done():
                    connecting.cancel()
                    await asyncio.gather(connecting, return_exceptions=True)
                    return None
                try:
                    return connecting.result()
                except AvailabilityError as error:
                    log.warning("waiting for the cluster: %s", error.message)
                    await asyncio.wait({stopping}, timeout=CONNECT_PAUSE_SECONDS)
        finally:
            stopping.cancel()


def make_auth(config: GatewayConfig) -> Auth:
    """The authentication that the settings ask for. ConfigurationError if the secret cannot be read."""
    key = None if config.token_secret_file is None else tokens.token_key(read_secret(config.token_secret_file))
    default = tuple(config.default_user) or process_user()
    return Auth(key, default if is_loopback(config.host) else None)


def listen(config: GatewayConfig) -> socket.socket:
    """The listening socket. AddressInUse or ConfigurationError if it cannot be had."""
    try:
        family = socket.getaddrinfo(config.host, config.port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((config.host, config.port), family=family, backlog=BACKLOG)
    except socket.gaierror as error:
        raise ConfigurationError(f"cannot listen on '{config.host}': {error.strerror}") from error
    except OSError as error:
        raise AddressInUse(f"cannot listen on {config.host}:{config.port}: {error.strerror}") from error


def run(config: GatewayConfig) -> int:
    """Runs a gateway until SIGTERM or SIGINT; StartupError if it cannot start."""
    import uvloop

    async def main() -> int:
        process = GatewayProcess(config)
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, process.stop)
        return await process.run()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main())
