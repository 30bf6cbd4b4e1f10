"""Real packet loss for one TCP port: an nftables table of our own, over netlink.

The table drops what arrives for or from the port in this network namespace; on one host all packets arrive here, so
both directions are cut, from and to everybody, without any sign to either side. The kernel removes the table with our
socket (``NFT_TABLE_F_OWNER``), so nothing stays cut when the drill dies. Needs CAP_NET_ADMIN in the network namespace,
which root has, and everybody in one of his own (``unshare --user --map-root-user --net``).

Message layouts: linux/netfilter/nf_tables.h and nfnetlink.h.
"""

import os
import socket
import struct
from typing import Final, Self

NETLINK_NETFILTER: Final = 12
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_SUBSYSTEM: Final = 10
_NEW_TABLE, _NEW_CHAIN, _NEW_RULE = 0, 3, 6
_REQUEST, _ACK, _CREATE, _APPEND = 0x1, 0x4, 0x400, 0x800
_ERROR: Final = 2
_INET: Final = 1
_LOCAL_IN: Final = 1
_NESTED: Final = 0x8000
_OWNER: Final = 2
_PRIORITY: Final = -300
_REPLY_BYTES_MAX: Final = 1 << 16
_ANSWER_SECONDS: Final = 5.0


class PacketLoss:
    """While it is there, a port is cut off. OSError if this machine does not allow it."""

    def __init__(self, port: int) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
        try:
            self._socket.settimeout(_ANSWER_SECONDS)
            self._socket.bind((0, 0))
            self._send(_rules(f"gfs-drill-{os.getpid()}", port))
        except BaseException:
            self._socket.close()
            raise

    def close(self) -> None:
        """Packets pass again."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _send(self, requests: list[tuple[int, bytes]]) -> None:
        """One transaction: all or nothing."""
        first = [_message(_BATCH_BEGIN, 0, 0, b"", _SUBSYSTEM)]
        middle = [
            _message(_SUBSYSTEM << 8 | kind, _ACK | _CREATE | _APPEND, number, body)
            for number, (kind, body) in enumerate(requests, start=1)
        ]
        last = [_message(_BATCH_END, 0, len(requests) + 1, b"", _SUBSYSTEM)]
        self._socket.send(b"".join(first + middle + last))
        answered = 0
        while answered < len(requests):
            data = self._socket.recv(_REPLY_BYTES_MAX)
            while data:
                length, kind = struct.unpack_from("=IH", data)
                if kind == _ERROR:
                    (code,) = struct.unpack_from("=i", data, 16)
                    if code:
                        raise OSError(-code, os.strerror(-code))
                    answered += 1
                data = data[(length + 3) & ~3 :]


def is_possible() -> bool:
    """Whether this process may drop packets here; tried with a port that nobody has."""
    try:
        with PacketLoss(0):
            return True
    except OSError:
        return False


def _rules(table: str, port: int) -> list[tuple[int, bytes]]:
    name = table.encode() + b"\0"
    hook = _nested(4, _number(1, _LOCAL_IN) + _number(2, _PRIORITY))
    chain = _attribute(1, name) + _attribute(3, b"input\0") + hook + _number(5, 1) + _attribute(7, b"filter\0")
    rules = []
    for offset in (0, 2):  # the source port, the destination port
        expressions = [
            _expression(b"meta", _number(1, 1) + _number(2, 16)),
            _expression(b"cmp", _number(1, 1) + _number(2, 0) + _nested(3, _attribute(1, bytes([socket.IPPROTO_TCP])))),
            _expression(b"payload", _number(1, 1) + _number(2, 2) + _number(3, offset) + _number(4, 2)),
            _expression(b"cmp", _number(1, 1) + _number(2, 0) + _nested(3, _attribute(1, struct.pack(">H", port)))),
            _expression(b"immediate", _number(1, 0) + _nested(2, _nested(2, _number(1, 0)))),
        ]
        rules.append(_attribute(1, name) + _attribute(2, b"input\0") + _nested(4, b"".join(expressions)))
    return [
        (_NEW_TABLE, _attribute(1, name) + _number(2, _OWNER)),
        (_NEW_CHAIN, chain),
        *((_NEW_RULE, rule) for rule in rules),
    ]


def _expression(name: bytes, data: bytes) -> bytes:
    return _nested(1, _attribute(1, name + b"\0") + _nested(2, data))


def _message(kind: int, flags: int, number: int, body: bytes, resource: int = 0) -> bytes:
    payload = struct.pack(">BBH", 0 if resource else _INET, 0, resource) + body
    return struct.pack("=IHHII", 16 + len(payload), kind, _REQUEST | flags, number, 0) + payload


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def _number(kind: int, value: int) -> bytes:
    return _attribute(kind, struct.pack(">i", value))


def _nested(kind: int, value: bytes) -> bytes:
    return _attribute(kind | _NESTED, value)
