"""How large a cluster on one host is, and which names and ports its processes have."""

from dataclasses import asdict, dataclass
from typing import Any, Final

from gfsprotocol.errors import ConfigurationError
from gfsprotocol.ids import REPLICATION_MAX

CHUNKSERVER_PORT_OFFSET: Final = 100
GATEWAY_PORT_OFFSET: Final = 200
MASTERS_MAX: Final = 9
CHUNKSERVERS_MAX: Final = 100
GATEWAYS_MAX: Final = 20
PORT_MAX: Final = 65535


@dataclass(frozen=True)
class Shape:
    """What ``gfs up`` was asked for. Ports: masters from ``port_base``, chunk servers 100, gateways 200 up."""

    masters: int
    chunkservers: int
    port_base: int
    replication: int
    host: str = "127.0.0.1"
    journal: str = ""
    """The address of the operation log's database; empty for SQLite in the cluster's directory."""
    begun: bool = False
    """Whether the cluster's log has been started; only before that may an empty log be begun."""
    gateways: int = 0
    """None in clusters that were made before there were gateways."""

    def check(self) -> None:
        """ConfigurationError if no cluster can look like this."""
        if not 1 <= self.masters <= MASTERS_MAX:
            raise ConfigurationError(f"--masters {self.masters}: between 1 and {MASTERS_MAX} are possible")
        if not 1 <= self.chunkservers <= CHUNKSERVERS_MAX:
            raise ConfigurationError(
                f"--chunkservers {self.chunkservers}: between 1 and {CHUNKSERVERS_MAX} are possible"
            )
        if not 1 <= self.replication <= REPLICATION_MAX:
            raise ConfigurationError(f"--replication {self.replication}: between 1 and {REPLICATION_MAX} are possible")
        if self.replication > self.chunkservers:
            raise ConfigurationError(
                f"--replication {self.replication} needs as many chunk servers, but there are {self.chunkservers}"
            )
        if not 0 <= self.gateways <= GATEWAYS_MAX:
            raise ConfigurationError(f"--gateways {self.gateways}: at most {GATEWAYS_MAX} are possible")
        last = max(port for _, port in self.addresses.values())
        if self.port_base < 1 or last > PORT_MAX:
            raise ConfigurationError(f"--port-base {self.port_base}: ports {self.port_base} to {last} are not possible")

    @property
    def master_names(self) -> list[str]:
        return [f"master-{index + 1}" for index in range(self.masters)]

    @property
    def chunkserver_names(self) -> list[str]:
        return [f"chunkserver-{index + 1}" for index in range(self.chunkservers)]

    @property
    def gateway_names(self) -> list[str]:
        return [f"gateway-{index + 1}" for index in range(self.gateways)]

    @property
    def names(self) -> list[str]:
        """All processes, in the order in which they are started."""
        return [*self.master_names, *self.chunkserver_names, *self.gateway_names]

    @property
    def master_addresses(self) -> list[str]:
        return [f"{self.host}:{self.master_port(index)}" for index in range(self.masters)]

    @property
    def addresses(self) -> dict[str, tuple[str, int]]:
        """Where each process listens, by its name."""
        masters = {name: (self.host, self.master_port(index)) for index, name in enumerate(self.master_names)}
        servers = {name: (self.host, self.chunkserver_port(index)) for index, name in enumerate(self.chunkserver_names)}
        gateways = {name: (self.host, self.gateway_port(index)) for index, name in enumerate(self.gateway_names)}
        return masters | servers | gateways

    def master_port(self, index: int) -> int:
        return self.port_base + index

    def chunkserver_port(self, index: int) -> int:
        return self.port_base + CHUNKSERVER_PORT_OFFSET + index

    def gateway_port(self, index: int) -> int:
        return self.port_base + GATEWAY_PORT_OFFSET + index

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)
