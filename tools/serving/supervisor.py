"""The parent of a vLLM server: `python -m tunesmith.tools.serving.supervisor RECORD.json`.

A server outlives the step that started it, since the next step often wants the same one. So that none is forgotten
when every other process of ours was killed, its parent ends it once its lease has run out. It dies with its parent,
and the parent with it. The engine of a deployed server is started again when it ends by itself, on the same port and
with the same key, until it has ended too often. Standard library only: it sits beside the server for as long as that
runs.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from tunesmith.memory.json_values import as_float, as_int, as_list, as_object
from tunesmith.tools.serving import restarts
from tunesmith.tools.serving.restarts import Restarts, port_is_free

_POLL_S = 1.0
_GRACE_S = 20.0
"""For vLLM to end its engine and give memory back; whoever stops a server waits as long."""
_PR_SET_PDEATHSIG = 1
"""Of linux/prctl.h; Python has no name for it."""
_ON_LINUX = sys.platform == "linux"


def main() -> int:
    """Keep the server that the record describes: wait for the end of its lease, or start it again where it is deployed.

    Returns what the program returned last, or GAVE_UP.
    """
    books = _Books(Path(sys.argv[1]))
    if not books.are_mine():
        return 0
    os.umask(0o077)  # of what vLLM writes, too
    books.say_who()
    engine = _Engine(books)
    signal.signal(signal.SIGTERM, engine.stop)
    while True:
        began = time.monotonic()
        code = engine.run()
        _sweep()
        signal.signal(signal.SIGTERM, engine.stop)  # sweeping had it ignored
        why = _ended_as(code)
        if code < 0 and -code != signal.SIGTERM:  # it had no time to say anything itself
            print(f"tunesmith: {why} ({signal.strsignal(-code)})", flush=True)
        if engine.stopping or not books.deployed():
            return code
        again = books.after(time.monotonic() - began, why)
        if again.gave_up:
            print(f"tunesmith: {why}, and is not started again: {again.gave_up}", flush=True)
            return restarts.GAVE_UP
        print(f"tunesmith: {why}; it is started again in {again.wait_s:.0f} s ({again.in_a_row} in a row)", flush=True)
        if not engine.pause(again.wait_s):
            return code


class _Engine:
    """The program, and what ends it."""

    def __init__(self, books: _Books) -> None:
        self.stopping = False
        self._books = books
        self._child: subprocess.Popen[bytes] | None = None

    def stop(self, *_: object) -> None:
        """End it, and start it no more."""
        self.stopping = True
        if self._child:
            self._child.terminate()

    def run(self) -> int:
        """Start it and wait for its end, or for that of its lease."""
        try:
            record = self._books.record()
            command = [str(record["program"]), *map(str, as_list(record["argv"]))]
            # preexec_fn, so that vLLM ends with this process however that ends; safe, as no thread runs here.
            self._child = child = subprocess.Popen(
                command, preexec_fn=_die_with_parent, cwd=Path.cwd(), env=self._books.environment(record)
            )
        except OSError as error:
            print(f"tunesmith: {type(error).__name__}: vLLM does not start: {error}", flush=True)
            return 127  # as a shell has it
        if self.stopping:  # the signal came before there was a child to pass it on to
            child.terminate()
        while not _ended(child, _POLL_S):
            if self._books.expired():
                print("tunesmith: the lease of this server ran out", flush=True)
                child.terminate()
                if not _ended(child, _GRACE_S):
                    child.kill()  # it had its time, and its memory is wanted
        return child.returncode

    def pause(self, seconds: float) -> bool:
        """Wait; False as soon as it is to stop, or off the books."""
        deadline = time.monotonic() + seconds
        while not self.stopping and not self._books.expired() and (left := deadline - time.monotonic()) > 0:
            time.sleep(min(left, _POLL_S / 5))  # so that a stop is obeyed soon
        return not self.stopping and not self._books.expired()


def _ended_as(code: int) -> str:
    return f"{signal.Signals(-code).name} ended vLLM" if code < 0 else f"vLLM ended with exit code {code}"


def preloads(ours: str, theirs: str) -> str:
    """Libraries to load first: the user's (an allocator, an OpenMP) and ours, but never a second OpenMP."""
    return theirs if "omp" in theirs else os.pathsep.join(filter(None, [ours, theirs]))


def _die_with_parent() -> None:
    # SIGTERM, not SIGKILL: vLLM must take its engine, a process of its own, along.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _ended(child: subprocess.Popen[bytes], wait_s: float) -> bool:
    with contextlib.suppress(subprocess.TimeoutExpired):  # it runs on
        child.wait(wait_s)
    return child.returncode is not None


class _Books:
    """The server's record and what lies beside it, and since when nobody renewed its lease.

    They are looked for in their folder, wherever that is by now: a home may be moved while its server runs. Time is
    counted on a clock of its own: the time of day may be set meanwhile.
    """

    def __init__(self, record_path: Path) -> None:
        folder = os.open(record_path.parent, os.O_RDONLY | os.O_CLOEXEC)
        self._path = Path(f"/proc/self/fd/{folder}", record_path.name) if _ON_LINUX else record_path
        self._renewed_ns, self._since = 0, time.monotonic()
        self._happened = restarts.read(self._path)
        self._lock, self._port = -1, 0

    def are_mine(self) -> bool:
        """Whether no other supervisor has this server; the kernel holds that for as long as this process lives."""
        # as all of a home
        self._lock = os.open(self._path.with_suffix(".lease"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with contextlib.suppress(BlockingIOError):  # the other supervisor holds it
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        return False

    def record(self) -> dict[str, object]:
        """What is on record now. Raises OSError, ValueError."""
        return as_object(json.loads(self._path.read_text()))

    def environment(self, record: dict[str, object]) -> dict[str, str]:
        """What the program is started in."""
        self._port, own = as_int(record["port"]), {n: str(v) for n, v in as_object(record["env"]).items()}
        env = {**os.environ, **own}
        before, theirs = os.environ.get("PYTHONPATH", ""), os.environ.get("LD_PRELOAD", "")
        env["PYTHONPATH"] = os.pathsep.join(filter(None, [own.get("PYTHONPATH", ""), before]))
        if theirs:
            env["LD_PRELOAD"] = preloads(own.get("LD_PRELOAD", ""), theirs)
        env["TUNESMITH_LOADER_KEY"] = str(record.get("loader_key", ""))
        env["PYTHONSAFEPATH"] = "1"  # vLLM starts Pythons of its own, which would look into their folder first
        env["VLLM_API_KEY"] = self._path.with_suffix(".key").read_text()
        return env

    def say_who(self) -> None:
        """Name this process beside the record: who started it may be killed before it does, or be the system's boot."""
        # The name in brackets may hold anything; behind it the 20th field is the start.
        ticks = int(Path("/proc/self/stat").read_bytes().rpartition(b")")[2].split()[19]) if _ON_LINUX else None
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip() if _ON_LINUX else ""
        who: dict[str, object] = {"pid": os.getpid(), "pid_started": time.time(), "boot_id": boot, "pid_ticks": ticks}
        if _ON_LINUX:
            who["pid_namespace"] = str(Path("/proc/self/ns/pid").readlink())
        self._path.with_suffix(".pid").write_text(json.dumps(who))

    def deployed(self) -> bool:
        """Whether it is on the books as deployed."""
        with contextlib.suppress(OSError, ValueError):  # being written, or gone: then not
            return bool(self.record()["role"] == "deployed")
        return False

    def expired(self) -> bool:
        """Whether its lease has run out, or somebody took it off the books."""
        try:
            record, renewed_ns = self.record(), self._path.with_suffix(".lease").stat().st_mtime_ns
        except FileNotFoundError:  # its record is gone: off the books
            return True
        except ValueError:  # what cannot be read now says nothing of a lease
            return False
        if renewed_ns != self._renewed_ns:
            self._renewed_ns, self._since = renewed_ns, time.monotonic()
        return bool(record["role"] != "deployed" and time.monotonic() - self._since > as_float(record["lease_s"]))

    def after(self, ran_s: float, why: str) -> Restarts:
        """The restart that follows, written down; a port that others took ends them."""
        again = self._happened.after(ran_s, why)
        if not again.gave_up and not port_is_free(self._port):
            again = self._happened.without_port(self._port)
        self._happened = again
        with contextlib.suppress(OSError):  # a full disk ends no server
            restarts.write(self._path, again)
        return again


def _sweep() -> None:
    """End what a server that was killed left behind: the rest of the group that this process leads."""
    if os.getpgrp() != os.getpid():
        return
    deadline = time.monotonic() + 5.0  # its engine has lost its parent already, and nothing is left to save
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # this process is of the group itself
    os.killpg(0, signal.SIGTERM)
    while _others_in_group() and time.monotonic() < deadline:
        time.sleep(0.05)  # a vLLM that was told to end takes a second or two
    if _others_in_group():
        # An engine that hangs; this process dies with its group, rather than start a second engine beside it.
        os.killpg(0, signal.SIGKILL)


def _others_in_group() -> bool:
    """Whether a process other than this one, and not a zombie, is in the group."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError):  # ended while it was looked at
            # The name in brackets may hold anything; state, ppid and group follow it.
            state, _, group, *_ = stat.read_text().rpartition(")")[2].split()
            if int(group) == os.getpid() and state not in "ZX" and stat.parent.name != str(os.getpid()):
                return True
    return False


if __name__ == "__main__":
    raise SystemExit(main())
