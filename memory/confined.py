"""Work on a stranger's bytes, in a process of its own: it is held to limits of time and memory.

A parser, a template or a question can take minutes and gigabytes within one call, where no deadline of ours is looked
at. The child reads files, writes none, finds no key in its environment, and hands back JSON, one item a line. It is
killed with all that it started when nobody listens any more; a parent that is killed itself leaves it to its limits.

It is no sandbox. A library that runs a stranger's code there may read and send whatever its user may, over the network
too, and what it starts in a session of its own outlives it. So the caller chooses what it is given to read.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import IO, Any, NamedTuple, TypeVar

from tunesmith.memory.errors import BadInput, TunesmithError

T = TypeVar("T")
_GRACE_S = 0.3
"""For work that watches its own clock to say itself that its time is up."""
_WAIT_S, _SLOWER = 60.0, 20.0
"""So much of waiting for the child, and so many times its processor time: a machine may be busy, a disk asleep."""
_LINE_BYTES = 32 << 20
"""Of one item: the largest answer to a question has 4 MB, and JSON spells one of its bytes with six at most."""
_INHERITED = (
    "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONHOME",
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS",
)  # fmt: skip
"""What an interpreter may need to start and to find its packages; keys have other names."""
_OUT_OF_MEMORY = 77
"""Exit code of a child whose work was refused memory."""
_ITEM, _REFUSED, _FAILED, _ENDED = "item", "refused", "failed", "ended"


class Limits(NamedTuple):
    """What the child may take."""

    cpu_s: float = 10.0
    """Processor time after its imports, of all its threads together: an honest file takes a second or two."""
    memory_bytes: int = 512 << 20
    """Address space of the whole process; Python alone takes about 40 MB of it."""
    file_bytes: int = 0
    """The most that it may write into one file; pipes are no files."""

    @property
    def wait_s(self) -> float:
        """The longest wait for it, all waits together."""
        return _WAIT_S + _SLOWER * self.cpu_s


class OverLimits(BadInput):
    """The work did not come to its end: its limits or a signal ended it."""


def confined(
    work: Callable[[T], Iterable[object]], argument: T, what: str, limits: Limits | None = None
) -> Iterator[Any]:
    """The items of `work(argument)`, a function of a module, as they come; both sides of it are JSON.

    `what` names the work in the sentence of an error. Raises BadInput with the child's own words where `work` raised
    it or a library failed, and OverLimits where something ended it. A caller that stops listening ends the child.
    """
    limits = limits or Limits()
    command = [sys.executable, "-P", "-m", __name__, work.__module__, work.__qualname__, *map(repr, limits)]
    pipe, env = subprocess.PIPE, {name: os.environ[name] for name in _INHERITED if name in os.environ}
    with subprocess.Popen(
        command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, cwd="/", env=env, process_group=0
    ) as child:
        try:
            assert child.stdin is not None
            assert child.stdout is not None
            with suppress(BrokenPipeError), child.stdin:  # it ended before it had read all; what it said tells
                child.stdin.write(json.dumps(argument).encode())  # a lone surrogate stays an escape
            for line in _lines(child.stdout, what, limits.wait_s):
                mark, item = json.loads(line)
                if mark in (_REFUSED, _FAILED):
                    raise BadInput(item if mark == _REFUSED else f"{what} cannot be read ({item})")
                if mark == _ENDED:
                    return
                yield item
            with suppress(subprocess.TimeoutExpired):
                child.wait(_WAIT_S)
        finally:
            # Also where nobody reads on: it would wait at a full pipe. A Mac refuses a signal to what has ended.
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(child.pid, signal.SIGKILL)
    raise OverLimits(f"{what} {_end(child.returncode, limits)}")


def _lines(answers: IO[bytes], what: str, wait_s: float) -> Iterator[bytes]:
    """Whole lines as they come; half a line, of a child that was ended, is none. Raises OverLimits."""
    begun, left_s = bytearray(), wait_s
    with selectors.DefaultSelector() as selector:
        selector.register(answers, selectors.EVENT_READ)
        while True:
            since = time.monotonic()
            ready = selector.select(min(1.0, left_s))
            left_s -= min(1.0, time.monotonic() - since)  # a process that was stopped meanwhile has not waited
            if left_s <= 0:
                raise OverLimits(f"{what} took more than {wait_s:g} s in all, and was ended")
            if not ready:
                continue
            read = os.read(answers.fileno(), 1 << 16)
            if not read:
                return
            whole, newline, rest = read.rpartition(b"\n")
            if newline:
                yield from (bytes(begun) + whole).split(b"\n")
                begun.clear()
            begun += rest
            if len(begun) > _LINE_BYTES:
                raise OverLimits(f"{what} comes to more than {_LINE_BYTES >> 20} MB at once, and was ended")


def _end(code: int, limits: Limits) -> str:
    """How a child ended that did not say so itself."""
    if -code in (signal.SIGPROF, signal.SIGXCPU):
        return f"took more than {limits.cpu_s:g} s of processor time, and was ended"
    if code == _OUT_OF_MEMORY:
        return f"took more than {limits.memory_bytes >> 20} MB of memory, and was ended"
    if -code == signal.SIGKILL:
        return "was killed from outside (SIGKILL), as where this machine's memory runs out; end other programs first"
    how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return f"broke off ({how}), maybe for want of memory: it may take {limits.memory_bytes >> 20} MB"


def confined_answer(work: Callable[[T], Iterable[object]], argument: T, what: str, limits: Limits | None = None) -> Any:
    """The one item of `work(argument)`; as `confined` otherwise."""
    (answer,) = confined(work, argument, what, limits)
    return answer


def main() -> int:
    """Carry out the work that the arguments name, and return the exit code; what it prints itself goes nowhere."""
    module, name, cpu_s, memory_bytes, file_bytes = sys.argv[1:]
    # What libraries print goes to the errors, and does not stand among the answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    argument = json.load(sys.stdin)
    work = getattr(importlib.import_module(module), name)
    # After the import, whose time is none of the work's.
    _limit(Limits(float(cpu_s), int(memory_bytes), int(file_bytes)))
    with suppress(BrokenPipeError):  # the parent has what it wanted
        return _carry_out(work, argument, answers)
    return 0


def _carry_out(work: Callable[[T], Iterable[object]], argument: T, answers: IO[bytes]) -> int:
    def tell(mark: str, item: object) -> None:
        answers.write(json.dumps([mark, item]).encode() + b"\n")

    try:
        for item in work(argument):
            tell(_ITEM, item)
        tell(_ENDED, None)
    except TunesmithError as error:
        tell(_REFUSED, str(error))
    except MemoryError:
        return _OUT_OF_MEMORY
    except Exception as error:  # of whatever library reads these bytes
        tell(_FAILED, f"{type(error).__name__}: {str(error)[:200]}")
    answers.flush()
    return 0


def _limit(limits: Limits) -> None:
    used_s = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    # In parts of a second, and with the signal's own effect, which is to end the process at once.
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_PROF, limits.cpu_s + _GRACE_S)
    whole_s = int(used_s + limits.cpu_s) + 1  # the kernel counts the imports, too, in whole seconds
    # A second later it is SIGKILL, which tells nothing of the reason.
    resource.setrlimit(resource.RLIMIT_CPU, (whole_s, whole_s + 1))
    for kind, most in (
        (resource.RLIMIT_AS, limits.memory_bytes),
        (resource.RLIMIT_FSIZE, limits.file_bytes),
        (resource.RLIMIT_CORE, 0),  # a dump would hold what it read
    ):
        resource.setrlimit(kind, (most, most))


if __name__ == "__main__":
    sys.exit(main())
