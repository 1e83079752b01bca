"""Work on a stranger's bytes, in a process of its own: the kernel holds it to limits of time and memory.

A parser, a template or a question can take minutes and gigabytes within one call, where no deadline of ours is looked
at. The child reads files, writes none, and hands back JSON, one item a line; it can be killed, and is, when nobody
listens any more. Not covered: a sandbox. The child may read whatever its user may, so what it is given to read is
chosen by the caller.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import IO, Any, NamedTuple, TypeVar

from tunesmith.memory.errors import BadInput, TunesmithError

T = TypeVar("T")
_GRACE_S = 0.3
"""For work that watches its own clock to say itself that its time is up."""
_ITEM, _REFUSED, _FAILED, _ENDED = "item", "refused", "failed", "ended"


class Limits(NamedTuple):
    """What the child may take."""

    cpu_s: float = 10.0
    """Processor time after its imports, of all its threads together: an honest file takes a second or two."""
    memory_bytes: int = 512 << 20
    """Address space of the whole process; Python alone takes about 40 MB of it."""
    file_bytes: int = 0
    """The most that it may write into one file; pipes are no files."""


class OverLimits(BadInput):
    """The work was ended by its limits."""


def confined(
    work: Callable[[T], Iterable[object]], argument: T, what: str, limits: Limits | None = None
) -> Iterator[Any]:
    """The items of `work(argument)`, a function of a module, as they come; both sides of it are JSON.

    `what` names the work in the sentence of an error. Raises BadInput with the child's own words where `work` raised
    it or a library failed, and OverLimits where the limits ended it. A caller that stops listening ends the child.
    """
    limits = limits or Limits()
    command = [sys.executable, "-P", "-m", __name__, work.__module__, work.__qualname__, *map(repr, limits)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, cwd="/") as child:
        try:
            assert child.stdin is not None
            assert child.stdout is not None
            with suppress(BrokenPipeError), child.stdin:  # it ended before it had read all; what it said tells
                child.stdin.write(json.dumps(argument).encode())  # a lone surrogate stays an escape
            for line in child.stdout:
                mark, item = json.loads(line) if line.endswith(b"\n") else ("", None)  # half a line: it was ended
                if mark in (_REFUSED, _FAILED):
                    raise BadInput(item if mark == _REFUSED else f"{what} cannot be read ({item})")
                if mark == _ENDED:
                    return
                if mark:
                    yield item
        finally:
            child.kill()  # also where nobody reads on: it would wait at a full pipe
    raise OverLimits(
        f"{what} took more than {limits.cpu_s:g} s of processor time or {limits.memory_bytes >> 20} MB of memory, "
        "and was ended"
    )


def confined_answer(work: Callable[[T], Iterable[object]], argument: T, what: str, limits: Limits | None = None) -> Any:
    """The one item of `work(argument)`; as `confined` otherwise."""
    (answer,) = confined(work, argument, what, limits)
    return answer


def main() -> None:
    """Carry out the work that the arguments name; whatever it prints itself goes nowhere."""
    module, name, cpu_s, memory_bytes, file_bytes = sys.argv[1:]
    # What libraries print goes to the errors, and does not stand among the answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    argument = json.load(sys.stdin)
    work = getattr(importlib.import_module(module), name)
    # After the import, whose time is none of the work's.
    _limit(Limits(float(cpu_s), int(memory_bytes), int(file_bytes)))
    with suppress(BrokenPipeError):  # the parent has what it wanted
        _carry_out(work, argument, answers)


def _carry_out(work: Callable[[T], Iterable[object]], argument: T, answers: IO[bytes]) -> None:
    def tell(mark: str, item: object) -> None:
        answers.write(json.dumps([mark, item]).encode() + b"\n")

    try:
        for item in work(argument):
            tell(_ITEM, item)
        tell(_ENDED, None)
    except TunesmithError as error:
        tell(_REFUSED, str(error))
    except MemoryError:
        return  # no end was told: the limits
    except Exception as error:  # of whatever library reads these bytes
        tell(_FAILED, f"{type(error).__name__}: {str(error)[:200]}")
    answers.flush()


def _limit(limits: Limits) -> None:
    used_s = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    # In parts of a second, and with the signal's own effect, which is to end the process at once.
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_PROF, limits.cpu_s + _GRACE_S)
    whole_s = int(used_s + limits.cpu_s) + 1  # the kernel counts the imports, too, in whole seconds
    for kind, most in (
        (resource.RLIMIT_CPU, whole_s),
        (resource.RLIMIT_AS, limits.memory_bytes),
        (resource.RLIMIT_FSIZE, limits.file_bytes),
        (resource.RLIMIT_CORE, 0),  # a dump would hold what it read
    ):
        resource.setrlimit(kind, (most, most))


if __name__ == "__main__":
    main()
