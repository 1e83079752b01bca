"""`tunesmith`: parse, dispatch, and turn every error into one line and an exit code.

Errors are caught here and nowhere below. Loads nothing heavy before it knows what was asked: `--help` and
`--version` answer within 100 ms.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tunesmith.agent.parser import parse
from tunesmith.memory.errors import BadInput, StepFailed, TunesmithError, disk_is_full
from tunesmith.tools import catalog

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    from tunesmith.agent.output import Output
    from tunesmith.agent.settings import Settings
    from tunesmith.memory.store import Store

_INTERRUPTED = 130
_STREAMS = ("run", "demo")


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out one command line and return its exit code; no traceback ever reaches the user."""
    words = list(sys.argv[1:] if argv is None else argv)
    _open_closed_streams()
    opened: list[Output] = []
    try:
        return _main(words, opened)
    except TunesmithError as error:
        return _failed(str(error), error.exit_code, words, opened)
    except KeyboardInterrupt:
        return _failed("interrupted", _INTERRUPTED, words, opened)
    except BrokenPipeError:
        # Whoever read stdout has left; without this the interpreter complains while it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        return _failed(unexpected(error), 1, words, opened)


def _open_closed_streams() -> None:
    """Put nothing behind a standard stream that was closed (`<&-`): reading it ends, writing to it is lost."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115, PTH123


def _main(words: list[str], opened: list[Output]) -> int:
    """Dispatch; what speaks to the user is put into `opened`, for whoever tells an error."""
    args, rest = parse(words)
    if args.command is None and args.prompt is None:
        from tunesmith.agent.repl import repl

        return repl()
    from tunesmith.agent import settings as settings_
    from tunesmith.agent.output import Output

    settings = settings_.load()
    streams = args.command in _STREAMS or args.prompt is not None
    out = Output(as_json=getattr(args, "json", False), stream=streams)
    opened.append(out)
    return _dispatch(args, rest, settings, out)


def _dispatch(args: argparse.Namespace, rest: list[str], settings: Settings, out: Output) -> int:
    if args.command == "suite":
        from tunesmith.agent import queries

        return queries.suite(args, out)
    store = open_store(settings, out)
    try:
        if args.prompt is not None:
            from tunesmith.agent.oneshot import oneshot

            return oneshot(args, settings, store, out)
        if args.command in catalog.BY_NAME or args.command in _STREAMS:
            from tunesmith.agent import carry

            if args.command in _STREAMS:
                return (carry.run if args.command == "run" else carry.demo)(args, settings, store, out)
            return carry.stage(args, rest, settings, store, out)
        from tunesmith.agent import queries

        return queries.COMMANDS[args.command](args, settings, store, out)
    finally:
        store.close()


def open_store(settings: Settings, out: Output) -> Store:
    """The store, after what died while nobody looked was found and told. Raises BadInput, StepFailed."""
    import sqlite3

    from tunesmith.memory.store import Store

    try:
        store = Store(settings.home)
    except (OSError, sqlite3.Error) as error:
        if disk_is_full(error):
            raise StepFailed(_full(settings.home)) from None
        raise BadInput(f"cannot open the store in {settings.home}: {error}; set TUNESMITH_HOME to a folder") from None
    for line in _recovered(store):
        out.say(line)
    return store


def _recovered(store: Store) -> list[str]:
    """What was found; where it cannot be written down that is said, and whoever asked may go on reading."""
    from tunesmith.agent.recovery import recover

    try:
        return recover(store)
    except Exception as error:
        return [f"what ended while nobody looked could not be written down: {unexpected(error)}"]


def _failed(message: str, exit_code: int, words: list[str], opened: list[Output]) -> int:
    """Tell an error in one line on stderr, and as JSON where that was asked for; a stream still ends with `done`."""
    from tunesmith.tools.report_format import visible

    if "--json" in words:
        from tunesmith.agent.output import Output

        streams = "-p" in words or any(word in _STREAMS for word in words)
        out = opened[0] if opened else Output(as_json=True, stream=streams)
        out.failed(message, exit_code)
        out.end(exit_code)
    elif opened:
        opened[0].let_go()
    print(f"tunesmith: {visible(' '.join(message.split()))}", file=sys.stderr)
    return exit_code


def unexpected(error: Exception) -> str:
    """One line about a full disk, or about a defect of ours, whose traceback goes to a file. Raises nothing."""
    from tunesmith.agent.settings import home_of

    if disk_is_full(error):
        return _full(home_of())
    return f"unexpected {type(error).__name__}: {str(error)[:300] or 'no message'}; {_logged(error)}"


def _full(home: Path) -> str:
    import shutil

    from tunesmith.agent.render import size

    try:
        free = size(shutil.disk_usage(next(place for place in (home, *home.parents) if place.exists())).free)
    except OSError:
        free = "unknown how much"
    return f"the disk of {home} is full ({free} free); make room, or move TUNESMITH_HOME to a disk that has some"


def _logged(error: Exception) -> str:
    """Where the traceback was written: beside the store, else where temporary files go."""
    import tempfile
    import time
    import traceback
    from pathlib import Path

    from tunesmith.agent.settings import home_of

    text = f"{time.strftime('%F %T')} {' '.join(sys.argv)}\n{''.join(traceback.format_exception(error))}\n"
    for at_home in (True, False):
        with contextlib.suppress(Exception):
            log = home_of() / "logs" / "errors.log" if at_home else Path(tempfile.gettempdir()) / "tunesmith-errors.log"
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("a") as file:
                file.write(text)
            return f"the traceback is in {log}"
    return "no log could be written"


if __name__ == "__main__":
    raise SystemExit(main())
