"""The parent of a vLLM server: `python -m tunesmith.tools.serving.supervisor RECORD.json`.

A server outlives the step that started it, since the next step often wants the same one. So that none is forgotten
when every other process of ours was killed, its parent ends it once its lease has run out. It dies with its parent,
and the parent with it. Standard library only: it sits beside the server for as long as that runs.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

_POLL_S = 1.0
_GRACE_S = 20.0
_PR_SET_PDEATHSIG = 1
_ON_LINUX = sys.platform == "linux"


def main() -> int:
    """Start the server that the record describes, and wait for its end or for the end of its lease."""
    record_path = Path(sys.argv[1])
    record = json.loads(record_path.read_text())
    os.umask(0o077)
    _say_who(record_path)
    before, theirs = os.environ.get("PYTHONPATH", ""), os.environ.get("LD_PRELOAD", "")
    os.environ.update(record["env"])
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [record["env"].get("PYTHONPATH", ""), before]))
    if theirs:
        os.environ["LD_PRELOAD"] = preloads(record["env"].get("LD_PRELOAD", ""), theirs)
    os.environ["TUNESMITH_LOADER_KEY"] = record.get("loader_key", "")
    os.environ["PYTHONSAFEPATH"] = "1"  # vLLM starts Pythons of its own, which would look into their folder first
    os.environ["VLLM_API_KEY"] = record_path.with_suffix(".key").read_text()
    command = [record["program"], *record["argv"]]
    child = subprocess.Popen(command, preexec_fn=_die_with_parent, cwd=Path.cwd())
    signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    lease = _Lease(record_path)
    while not _ended(child, _POLL_S):
        if lease.expired():
            print("tunesmith: the lease of this server ran out", flush=True)
            child.terminate()
            if not _ended(child, _GRACE_S):
                child.kill()
    _sweep()
    if child.returncode < 0 and -child.returncode != signal.SIGTERM:  # it had no time to say anything itself
        why = signal.Signals(-child.returncode)
        print(f"tunesmith: {why.name} ended vLLM ({signal.strsignal(why)})", flush=True)
    return child.returncode


def preloads(ours: str, theirs: str) -> str:
    """Libraries to load first: the user's (an allocator, an OpenMP) and ours, but never a second OpenMP."""
    return theirs if "omp" in theirs else os.pathsep.join(filter(None, [ours, theirs]))


def _say_who(record_path: Path) -> None:
    """Name this process beside the record: who started it may be killed before it does."""
    ticks = int(Path("/proc/self/stat").read_bytes().rpartition(b")")[2].split()[19]) if _ON_LINUX else None
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip() if _ON_LINUX else ""
    who = {"pid": os.getpid(), "pid_started": time.time(), "boot_id": boot, "pid_ticks": ticks}
    record_path.with_suffix(".pid").write_text(json.dumps(who))


def _die_with_parent() -> None:
    # SIGTERM, not SIGKILL: vLLM must take its engine, a process of its own, along.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _ended(child: subprocess.Popen[bytes], wait_s: float) -> bool:
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(wait_s)
    return child.returncode is not None


class _Lease:
    """Counts since when nobody renewed, on a clock of its own: the time of day may be set meanwhile.

    The records are looked for in their folder, wherever that is by now: a home may be moved while its server runs.
    """

    def __init__(self, record_path: Path) -> None:
        self._folder = os.open(record_path.parent, os.O_RDONLY | os.O_CLOEXEC)
        self._record, self._lease = record_path.name, record_path.with_suffix(".lease").name
        self._renewed_ns, self._since = 0, time.monotonic()

    def expired(self) -> bool:
        try:
            with open(os.open(self._record, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._folder)) as file:  # noqa: PTH123
                record = json.load(file)
            renewed_ns = os.stat(self._lease, dir_fd=self._folder).st_mtime_ns
        except FileNotFoundError:
            return True  # somebody took the server off the books
        except ValueError:
            return False
        if renewed_ns != self._renewed_ns:
            self._renewed_ns, self._since = renewed_ns, time.monotonic()
        return bool(record["role"] != "deployed" and time.monotonic() - self._since > record["lease_s"])


def _sweep() -> None:
    """End what a server that was killed left behind: the rest of the group that this process leads."""
    if os.getpgrp() != os.getpid():
        return
    deadline = time.monotonic() + 5.0
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.killpg(0, signal.SIGTERM)
    while _others_in_group() and time.monotonic() < deadline:
        time.sleep(0.05)
    if _others_in_group():
        os.killpg(0, signal.SIGKILL)


def _others_in_group() -> bool:
    """Whether a process other than this one, and not a zombie, is in the group."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError):
            # The name in brackets may hold anything; state, ppid and group follow it.
            state, _, group, *_ = stat.read_text().rpartition(")")[2].split()
            if int(group) == os.getpid() and state not in "ZX" and stat.parent.name != str(os.getpid()):
                return True
    return False


if __name__ == "__main__":
    raise SystemExit(main())
