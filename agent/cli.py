"""`tunesmith`: parse, dispatch, and turn every error into one line and an exit code.

Errors are caught here and nowhere below. Loads nothing heavy before it knows what was asked: `--help` and
`--version` answer within 100 ms, and who says nothing but `tunesmith` does not wait for the parser.
"""

from __future__ import annotations

import codecs
import io
import os
import re
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING

from tunesmith.agent.commands.startup import explained, open_store
from tunesmith.memory.errors import BadInput, StepFailed, TunesmithError
from tunesmith.memory.privacy import keep_private
from tunesmith.tools.pipeline import catalog

if TYPE_CHECKING:
    import argparse

    from tunesmith.agent.commands.output import Output
    from tunesmith.agent.commands.settings import Settings

_INTERRUPTED = 130
"""As shells have it: 128 + SIGINT."""
_STREAMS = ("run", "resume", "demo")
_MODULES = {
    "run": "run_steps",
    "demo": "run_steps",
    "mcp": "mcp_clients",
    "verify": "pack",
    **{name: name for name in ("teach", "teach_rows", "rows", "ask", "rate", "queue", "pack")},
}
"""Of a command, the module that holds a function of its name; of all others `queries`."""
_ENDLESS = re.compile(r"\S{400,}")
"""A name of thousands of characters, which would hide what is said of it."""


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out one command line and return its exit code; no traceback ever reaches the user."""
    words = list(sys.argv[1:] if argv is None else argv)
    keep_private()
    _prepare_streams()
    opened: list[Output] = []
    try:
        return _main(words, opened)
    except TunesmithError as error:
        return _failed(str(error), error.exit_code, words, opened)
    except KeyboardInterrupt:  # a person's, not ours: told in a word
        return _failed("interrupted", _INTERRUPTED, words, opened)
    except BrokenPipeError:
        _drop_stdout()  # whoever read it has left
        return 1
    except UnicodeEncodeError as error:
        # Bytes of an argument that are no UTF-8 came in as surrogates, which no store and no request takes.
        if not any(word in " ".join(words) for word in error.object[error.start : error.end]):
            return _failed(str(explained(error)), 1, words, opened)
        return _failed("an argument is not UTF-8 text; give it as text", BadInput.exit_code, words, opened)
    except Exception as error:  # a defect of ours: told in a line, with where its trace is
        failure = StepFailed(lost) if (lost := _lost_stdout(error)) else explained(error)
        return _failed(str(failure), failure.exit_code, words, opened)


def _prepare_streams() -> None:
    """Put nothing behind a standard stream that was closed (`<&-`): reading it ends, writing to it is lost.

    What an encoding has no letter for is written as JSON would escape it, so that a document stays one.
    """
    codecs.register_error("as-json", _as_json)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115, PTH123  # as long as the process
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="as-json")


def _as_json(error: UnicodeError) -> tuple[str, int]:
    import json

    assert isinstance(error, UnicodeEncodeError)
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end


def _lost_stdout(error: Exception) -> str:
    """What is wrong with stdout where that is what failed; empty where it takes what is written."""
    if not isinstance(error, OSError) or error.filename is not None:
        return ""
    try:
        # tried, as the error says not of which file it is
        os.write(sys.stdout.fileno(), b"\n")
    except OSError as lost:
        _drop_stdout()
        return f"what was to be printed could not be written: {lost.strerror}"
    return ""


def _drop_stdout() -> None:
    """Nothing more is written to it; without this the interpreter complains while it flushes."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _main(words: list[str], opened: list[Output]) -> int:
    """Dispatch; what speaks to the user is put into `opened`, for whoever tells an error."""
    if not words:
        return _talk()
    from tunesmith.agent.commands.parser import parse

    args, rest = parse(words)
    if args.command is None and args.prompt is None:
        return _talk()
    if args.command == "setup":
        from tunesmith.tools.machine import bootstrap

        return bootstrap.main(["--say", "--device", args.device, *(["--check"] if args.check else [])])
    if args.command == "doctor" and args.gpu:
        from tunesmith.tools.machine.gpus import measure_gpus, trains_on_cpu, why_no_gpu

        # At once: nothing is opened, and nothing heavier imported, to say that there is none.
        if why := why_no_gpu(measure_gpus(), on_cpu=trains_on_cpu()):
            raise BadInput(f"doctor: {why}")
    from tunesmith.agent.commands import settings as settings_
    from tunesmith.agent.commands.output import Output

    settings = settings_.load()
    streams = args.command in _STREAMS or args.prompt is not None
    out = Output(as_json=getattr(args, "json", False), stream=streams)  # not every command has it
    opened.append(out)
    return _dispatch(args, rest, settings, out)


def _talk() -> int:
    from tunesmith.tools.core.settled import uncollected

    with uncollected():
        from tunesmith.agent.repl.repl import repl
    return repl()


def _dispatch(args: argparse.Namespace, rest: list[str], settings: Settings, out: Output) -> int:
    if args.command == "suite":
        from tunesmith.agent.commands.suites import suite

        return suite(args, out)
    store = open_store(settings, out)
    try:
        if args.prompt is not None:
            from tunesmith.agent.oneshot import oneshot

            return oneshot(args, settings, store, out)
        if args.command in catalog.BY_NAME:
            from tunesmith.agent.commands.run_steps import stage

            return stage(args, rest, settings, store, out)
        name = "teach_rows" if args.command == "teach" and args.rows and not args.example else args.command
        module = import_module(f"tunesmith.agent.commands.{_MODULES.get(name, 'queries')}")
        exit_code: int = getattr(module, name)(args, settings, store, out)
        return exit_code
    finally:
        store.close()


def _failed(message: str, exit_code: int, words: list[str], opened: list[Output]) -> int:
    """Tell an error in one line on stderr, and as JSON where that was asked for; a stream still ends with `done`."""
    from tunesmith.tools.core.format import visible

    # 200 and 20: a path's beginning, and its end, which names the file.
    message = _ENDLESS.sub(lambda word: f"{word[0][:200]}…{word[0][-20:]}", message)
    if "--json" in words:
        from tunesmith.agent.commands.output import Output

        streams = "-p" in words or any(word in _STREAMS for word in words)
        out = opened[0] if opened else Output(as_json=True, stream=streams)
        out.failed(message, exit_code)
        out.end(exit_code)
    elif opened:
        opened[0].let_go()
    print(f"tunesmith: {visible(' '.join(message.split()))}", file=sys.stderr)
    return exit_code


if __name__ == "__main__":
    raise SystemExit(main())
