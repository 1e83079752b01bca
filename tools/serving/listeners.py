"""Who listens on a port: a key is sent only to a server that is really ours."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path

from tunesmith.tools.machine.processes import tree
from tunesmith.tools.serving.spec import LOOPBACK

_LISTENS = "0A"
_LOOPBACK = "0100007F"
"""127.0.0.1, as the kernel prints it."""


def port_is_free(port: int) -> bool:
    """Whether a server could listen on this port of the loopback address now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """A port of the loopback address that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def is_ours(port: int, pid: int) -> bool:
    """Whether whoever answers on 127.0.0.1:`port` is the process `pid` or one below it.

    Off Linux nobody can tell, and the answer is yes.
    """
    if not Path("/proc/net/tcp").exists():
        return True
    inodes = _listening(port)
    return bool(inodes) and inodes <= {inode for child in tree(pid) for inode in _sockets(child)}


def _listening(port: int) -> set[str]:
    """Inodes of the sockets that a connection to the loopback address may reach: the exact address goes first."""
    exact, any_address = set[str](), set[str]()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                _, local, _, state, *rest = line.split()
                address, _, number = local.partition(":")
                if state == _LISTENS and int(number, 16) == port:
                    (exact if address == _LOOPBACK else any_address).add(rest[5])
    return exact or any_address


def _sockets(pid: int) -> set[str]:
    inodes = set[str]()
    with contextlib.suppress(OSError):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                name = str(link.readlink())
                if name.startswith("socket:["):
                    inodes.add(name[len("socket:[") : -1])
    return inodes
