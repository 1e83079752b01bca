"""Who is behind a port: a key and a prompt are sent only to a server that is really ours.

A server that dies frees its port, and whoever takes it next would be sent what was meant for it. So a connection is
looked at before it is opened, and after it is open and before anything is sent: an open connection keeps its other end.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from tunesmith.memory.errors import StepFailed
from tunesmith.tools.machine.processes import ProcessId, tree
from tunesmith.tools.serving.addresses import Address, is_loopback_ip
from tunesmith.tools.serving.spec import LOOPBACK

_LISTENS = "0A"  # TCP_LISTEN
_LOOPBACK = "0100007F"
"""127.0.0.1, as the kernel prints it: in hex, the last byte first."""
_ANY = "00000000"
_TABLE = Path("/proc/net/tcp")
_LOOKS, _PAUSE_S = 3, 0.02
"""The kernel's table may lack a line while it changes: what is missing is looked for again before it counts."""


class _Connected(Protocol):
    """A socket, or what asyncio shows of one."""

    def getsockname(self) -> Sequence[str | int]: ...

    def getpeername(self) -> Sequence[str | int]: ...


class SendRefused(StepFailed):
    """A request was not sent, or its answer not taken: somebody else would have got or given it."""


def free_port() -> int:
    """A port of the loopback address that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True, slots=True)
class Listener:
    """A server of ours: the port of 127.0.0.1 that it listens on, and the process that it is, or is below."""

    port: int
    process: ProcessId

    def look(self) -> Seen:
        """The sockets at its port now, and those that belong to it. Off Linux nobody can tell: everything does."""
        if not _TABLE.exists():
            return Seen(can_tell=False)
        listening, connections = _sockets_at(self.port)
        if not (listening or connections):  # as while it loads: whose sockets those would be need not be known
            return Seen()
        own = _sockets_below(self.process.pid) if self.process.alive() else frozenset[str]()
        return Seen(frozenset(listening), connections, own)

    def is_ours(self) -> bool:
        """Whether whoever answers at the port is this server."""
        return self.look().is_ours


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen at a server's port at one moment."""

    listening: frozenset[str] = frozenset()
    """Inodes of the sockets that listen there."""
    connections: dict[int, str] = field(default_factory=dict)
    """Port of who connected → inode of the other end, "0" while nobody has accepted it."""
    own: frozenset[str] = frozenset()
    """Inodes of all sockets of the server's processes."""
    can_tell: bool = True

    @property
    def is_ours(self) -> bool:
        """Whether only the server's own processes listen."""
        return not self.can_tell or (bool(self.listening) and self.listening <= self.own)

    def is_peer(self, port: int) -> bool:
        """Whether the other end of an open connection from `port` is the server's.

        One that nobody has accepted yet waits at a socket that listens, and ends with that; the table was read from
        its listening sockets to its connections, so where those are all ours, it waits at one of them.
        """
        if not self.can_tell:
            return True
        inode = self.connections.get(port)
        return self.is_ours if inode == "0" else inode in self.own


def _sockets_at(port: int) -> tuple[set[str], dict[int, str]]:
    """Who listens at a port of the loopback address, and who is connected to it; the exact address goes first."""
    exact, any_address, connections = set[str](), set[str](), dict[int, str]()
    own = f":{port:04X} "
    with contextlib.suppress(OSError):  # no such table: nobody is seen there
        for line in _TABLE.read_text().splitlines()[1:]:
            if own not in line:  # a busy machine has thousands of others, and every connection is looked at
                continue
            _, local, remote, state, *rest = line.split()  # the sixth of the rest is the socket's inode
            address, _, number = local.partition(":")
            if int(number, 16) != port:
                continue
            if state == _LISTENS:
                if address in (_LOOPBACK, _ANY):
                    (exact if address == _LOOPBACK else any_address).add(rest[5])
            elif address == _LOOPBACK and remote.startswith(f"{_LOOPBACK}:"):
                connections[int(remote.partition(":")[2], 16)] = rest[5]
    # Who listens at the exact address gets what is sent there; others get what is left.
    return exact or any_address, connections


def _sockets_below(pid: int) -> frozenset[str]:
    return frozenset(inode for child in tree(pid) for inode in _sockets(child))


def _sockets(pid: int) -> set[str]:
    inodes = set[str]()
    with contextlib.suppress(OSError):  # the process, or one of its descriptors, may be gone meanwhile
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):  # closed meanwhile
                name = str(link.readlink())
                if name.startswith("socket:["):
                    inodes.add(name[len("socket:[") : -1])
    return inodes


class Guard:
    """What must hold of a new connection before anything is sent over it. Raises SendRefused."""

    def __init__(self, address: Address, listener: Listener | None = None) -> None:
        """`listener`: the server of ours that must be behind the address; None where it is the user's own."""
        self._address, self._listener = address, listener
        self._looking: asyncio.Task[Seen] | None = None
        self._next: asyncio.Task[Seen] | None = None

    def before(self) -> None:
        """Asked before a connection is opened."""
        if self._listener and not self._again(lambda seen: seen.is_ours):
            raise self._stranger()

    def after(self, connected: _Connected | None) -> None:
        """Asked once a connection is open."""
        port = self._port_to_look_for(connected)
        if port and not self._again(lambda seen: seen.is_peer(port)):
            raise self._stranger()

    async def before_async(self) -> None:
        """`before`, for many connections at once."""
        if self._listener and not await self._again_async(lambda seen: seen.is_ours):
            raise self._stranger()

    async def after_async(self, connected: _Connected | None) -> None:
        """`after`, for many connections at once."""
        port = self._port_to_look_for(connected)
        if port and not await self._again_async(lambda seen: seen.is_peer(port)):
            raise self._stranger()

    def _port_to_look_for(self, connected: _Connected | None) -> int:
        """Our own port of a connection to a server of ours; 0 where its other end is only held to be this machine."""
        if not self._address.is_loopback:
            return 0
        if connected is None:
            raise SendRefused(f"the other end of a connection to {self._address.place} is not known; nothing was sent")
        peer = str(connected.getpeername()[0])
        if not is_loopback_ip(ipaddress.ip_address(peer.partition("%")[0])):  # what a name led to has changed
            raise SendRefused(f"{self._address.place} led to {peer}, which is another machine; nothing was sent")
        return int(connected.getsockname()[1]) if self._listener else 0

    def _again(self, right: Callable[[Seen], bool]) -> bool:
        assert self._listener
        for attempt in range(_LOOKS):  # the table may lack a line while it changes
            time.sleep(_PAUSE_S if attempt else 0)
            if right(self._listener.look()):
                return True
        return False

    async def _again_async(self, right: Callable[[Seen], bool]) -> bool:
        for attempt in range(_LOOKS):  # as above
            if attempt:
                await asyncio.sleep(_PAUSE_S)
            if right(await self._look()):
                return True
        return False

    async def _look(self) -> Seen:
        """A look that begins after this was called; one serves all that wait for it."""
        if self._next is None:
            self._next = asyncio.create_task(self._look_after(self._looking))
        return await asyncio.shield(self._next)

    async def _look_after(self, running: asyncio.Task[Seen] | None) -> Seen:
        assert self._listener
        if running:  # it began before it was asked for: what it saw is too old
            await asyncio.wait({running})
        self._looking, self._next = self._next, None
        return await asyncio.to_thread(self._listener.look)

    def _stranger(self) -> SendRefused:
        assert self._listener
        return SendRefused(
            f"whoever listens on {self._address.place} is not our server (pid {self._listener.process.pid}), which has "
            "ended; nothing was sent there: try again, and a new server is started"
        )
