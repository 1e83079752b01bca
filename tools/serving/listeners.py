"""Who is behind a port: a key is sent only to a server that is really ours, or to a program of this user or of root.

A server that dies frees its port, and whoever takes it next would be sent what was meant for it. So a connection is
looked at before it is opened, and after it is open and before anything is sent: an open connection keeps its other end.
Not covered: off Linux, and without /proc, nobody can tell whose a socket is, and everybody is trusted.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

from tunesmith.memory.errors import StepFailed
from tunesmith.tools.machine.processes import ProcessId, tree
from tunesmith.tools.serving.addresses import Address, is_loopback_ip
from tunesmith.tools.serving.spec import LOOPBACK

_LISTENS = "0A"  # TCP_LISTEN
_TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
_NOT_ACCEPTED = "0"
_ROOT = 0
_LOOKS, _PAUSE_S = 3, 0.02
"""The kernel's table may lack a line while it changes: what is missing is looked for again before it counts."""

_Ip = ipaddress.IPv4Address | ipaddress.IPv6Address
_Ends = tuple[_Ip, _Ip, int]
"""Of a connection to a known port: the server's address, and address and port of who connected."""


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


def can_tell() -> bool:
    """Whether this system says whose a socket is."""
    return _TABLES[0].exists()


class _Behind(Protocol):
    """Who must be behind a port."""

    def look(self) -> Seen: ...

    def refusal(self, place: str) -> str: ...


@dataclass(frozen=True, slots=True)
class Listener:
    """A server of ours: the port of 127.0.0.1 that it listens on, and the process that it is, or is below."""

    port: int
    process: ProcessId

    def look(self) -> Seen:
        """The sockets at its port now, and those that belong to it. Off Linux nobody can tell: everything does."""
        if not can_tell():
            return Seen(can_tell=False)
        sockets = list(_sockets_at(self.port))
        if not sockets:  # as while it loads: whose sockets those would be need not be known
            return Seen()
        own = _sockets_below(self.process.pid) if self.process.alive() else frozenset[str]()
        # Who listens at the exact address gets what is sent there; others get what is left.
        exact = [one for one in sockets if one.listens and str(one.ip) == LOOPBACK]
        return _seen(sockets, exact or [one for one in sockets if one.listens and one.ip.is_unspecified], own)

    def is_ours(self) -> bool:
        """Whether whoever answers at the port is this server."""
        return self.look().is_ours

    def refusal(self, place: str) -> str:
        """What is said of anybody else there."""
        return (
            f"whoever listens on {place} is not our server (pid {self.process.pid}), which has ended; nothing was sent "
            "there: try again, and a new server is started"
        )


@dataclass(frozen=True, slots=True)
class UsersProgram:
    """A program of the user's own at a port of this machine: it runs as this user, or as root."""

    port: int

    def look(self) -> Seen:
        """As `Listener.look`; whoever listens on any loopback address of the port counts."""
        if not can_tell():
            return Seen(can_tell=False)
        sockets = list(_sockets_at(self.port))
        # A connection that nobody has accepted may be shown as root's.
        own = frozenset(one.inode for one in sockets if one.uid in _trusted() and one.inode != _NOT_ACCEPTED)
        return _seen(sockets, [one for one in sockets if one.listens], own)

    def refusal(self, place: str) -> str:
        """Who is there instead, as far as that is seen."""
        others = sorted({one.uid for one in _sockets_at(self.port) if one.listens} - _trusted())
        if others:
            who = f"{place} belongs to a program of another user (uid {others[0]})"
        else:  # a port that is forwarded into another network namespace
            who = f"it cannot be seen whose program answers on {place}, as where a container's port is forwarded"
        return (
            f"{who}; no key was sent there: let a program of your own or of root listen there (such as `ssh -L`), or, "
            "where that endpoint asks for no key, name none in settings.toml"
        )


def _trusted() -> set[int]:
    return {_ROOT, os.geteuid()}


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen at a server's port at one moment."""

    listening: frozenset[str] = frozenset()
    """Inodes of the sockets that listen there."""
    connections: dict[_Ends, str] = field(default_factory=dict)
    """Who connected → inode of the other end, "0" while nobody has accepted it."""
    own: frozenset[str] = frozenset()
    """Inodes of the sockets that are in the right hands."""
    can_tell: bool = True

    @property
    def is_ours(self) -> bool:
        """Whether only the right ones listen."""
        return not self.can_tell or (bool(self.listening) and self.listening <= self.own)

    def is_peer(self, ends: _Ends) -> bool:
        """Whether the other end of an open connection is in the right hands.

        One that nobody has accepted yet waits at a socket that listens, and ends with that; the table was read from
        its listening sockets to its connections, so where those are all ours, it waits at one of them.
        """
        if not self.can_tell:
            return True
        inode = self.connections.get(ends)
        return self.is_ours if inode == _NOT_ACCEPTED else inode in self.own


class _Socket(NamedTuple):
    """A socket of a server's port, as the kernel's table has it."""

    ip: _Ip
    peer: tuple[_Ip, int]
    listens: bool
    uid: int
    inode: str


def _sockets_at(port: int) -> Iterator[_Socket]:
    """Those at a port of the loopback addresses, or of all addresses."""
    own = f":{port:04X} "
    for table in _TABLES:
        with contextlib.suppress(OSError):  # no such table: nobody is seen there
            for line in table.read_text().splitlines()[1:]:
                if own not in line:  # a busy machine has thousands of others, and every connection is looked at
                    continue
                _, local, remote, state, _, _, _, uid, _, inode, *_ = line.split()
                ip, number = _end(local)
                if number == port and (is_loopback_ip(ip) or ip.is_unspecified):
                    yield _Socket(ip, _end(remote), state == _LISTENS, int(uid), inode)


def _end(text: str) -> tuple[_Ip, int]:
    """Address and port, which the kernel prints in hex, an address as 32-bit words of this machine's byte order."""
    address, _, port = text.partition(":")
    words = (int(address[at : at + 8], 16).to_bytes(4, sys.byteorder) for at in range(0, len(address), 8))
    return _plain(ipaddress.ip_address(b"".join(words))), int(port, 16)


def _plain(ip: _Ip) -> _Ip:
    """An IPv4 address that an IPv6 socket has is one and the same."""
    return (isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped) or ip


def _seen(sockets: Sequence[_Socket], listening: Sequence[_Socket], own: frozenset[str]) -> Seen:
    connections = {(one.ip, *one.peer): one.inode for one in sockets if not one.listens}
    return Seen(frozenset(one.inode for one in listening), connections, own)


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


def _read(ip: str | int) -> _Ip:
    """An address as a socket tells it, without the interface that an IPv6 one may name."""
    return ipaddress.ip_address(str(ip).partition("%")[0])


class Guard:
    """What must hold of a new connection before anything is sent over it. Raises SendRefused."""

    def __init__(self, address: Address, listener: Listener | None = None, *, has_key: bool = True) -> None:
        """`listener`: the server of ours that must be behind the address; None where it is the user's own.

        Where a key is sent to an address of this machine, a program of this user or of root must be there at least.
        """
        self._address, self._listener = address, listener
        users = UsersProgram(address.port) if has_key and address.is_loopback else None
        self._behind: _Behind | None = listener or users
        self._looking: asyncio.Task[Seen] | None = None
        self._next: asyncio.Task[Seen] | None = None

    def before(self) -> None:
        """Asked before a connection is opened."""
        if self._listener and not self._again(lambda seen: seen.is_ours):
            raise self._stranger()

    def after(self, connected: _Connected | None) -> None:
        """Asked once a connection is open."""
        ends = self._ends_to_look_for(connected)
        if ends and not self._again(lambda seen: seen.is_peer(ends)):
            raise self._stranger()

    async def before_async(self) -> None:
        """`before`, for many connections at once."""
        if self._listener and not await self._again_async(lambda seen: seen.is_ours):
            raise self._stranger()

    async def after_async(self, connected: _Connected | None) -> None:
        """`after`, for many connections at once."""
        ends = self._ends_to_look_for(connected)
        if ends and not await self._again_async(lambda seen: seen.is_peer(ends)):
            raise self._stranger()

    def _ends_to_look_for(self, connected: _Connected | None) -> _Ends | None:
        """The ends of a connection whose other end must be somebody's; None where only this machine is asked for."""
        if not self._address.is_loopback:
            return None
        if connected is None:
            raise SendRefused(f"the other end of a connection to {self._address.place} is not known; nothing was sent")
        peer, (own, port, *_) = connected.getpeername()[0], connected.getsockname()
        if not is_loopback_ip(ip := _read(peer)):  # what a name led to has changed
            raise SendRefused(f"{self._address.place} led to {peer}, which is another machine; nothing was sent")
        return (_plain(ip), _plain(_read(own)), int(port)) if self._behind else None

    def _again(self, right: Callable[[Seen], bool]) -> bool:
        assert self._behind
        for attempt in range(_LOOKS):  # the table may lack a line while it changes
            time.sleep(_PAUSE_S if attempt else 0)
            if right(self._behind.look()):
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
        assert self._behind
        if running:  # it began before it was asked for: what it saw is too old
            await asyncio.wait({running})
        self._looking, self._next = self._next, None
        return await asyncio.to_thread(self._behind.look)

    def _stranger(self) -> SendRefused:
        assert self._behind
        return SendRefused(self._behind.refusal(self._address.place))
