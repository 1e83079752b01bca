"""The command line, built from the catalogue. Light: `--help` and `--version` load no more than this.

Options that several commands share are set only where they were given, so that `tunesmith --json runs` and
`tunesmith runs --json` mean the same.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

from tunesmith.agent.commands.help_groups import ByGroup
from tunesmith.agent.commands.option_values import gib, gigabytes, hours
from tunesmith.agent.commands.parser_errors import PROGRAM, Parser
from tunesmith.agent.commands.rate_options import RATE, add_rate_options, port_number
from tunesmith.agent.commands.same_words import SAME_AS
from tunesmith.agent.version import VERSION
from tunesmith.memory.errors import BadInput
from tunesmith.tools.pipeline import catalog

MCP_CLIENTS = ("claude-code", "codex", "cursor")


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        print(f"tunesmith {VERSION}")
        parser.exit()


def parse(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """The arguments, and those that a stage's request does not know. Raises BadInput."""
    parser = build()
    args, rest = parser.parse_known_args(argv)
    if args.command == "help":
        build().parse_args([*args.words, "--help"])  # it prints and leaves
    if args.command == "serve":
        _deploys(args, rest)
    if args.prompt is not None and args.command is not None:
        raise BadInput(f"-p is a whole turn, so no command goes with it; leave -p or {args.command!r} out")
    if rest and args.command not in catalog.BY_NAME:
        parser.refuse(rest)
    # The option is there only where it was given.
    if hasattr(args, "max_hours") and not getattr(args, "yes", False):
        raise BadInput(f"--max-hours {args.max_hours:g} limits what --yes agrees to; give --yes too, or leave it out")
    return args, rest


def _deploys(args: argparse.Namespace, rest: Sequence[str]) -> None:
    """`serve WHAT`, and `serve` with an option that says what and how, is a step of the stage that serves.

    Raises BadInput for an option beside `status` or `stop`.
    """
    what = getattr(args, "what", None)
    shared = {"command", "what", "json", "prompt", "yes", "max_hours"}
    given = {name for name, value in vars(args).items() if value is not None} - shared
    if what not in (None, *SERVE_ACTIONS) or (what is None and (given or rest)):
        args.command = catalog.maker_of("deployment")
        return
    if given or rest:
        typed = " ".join(("serve", what or "")).strip()
        raise BadInput(f"`tunesmith {typed}` takes no option but --json; `tunesmith serve RUN` takes those of `deploy`")
    args.action = what


def build() -> Parser:
    """The parser; of a stage's request it imports the one whose command is typed."""
    parser = Parser(
        prog=PROGRAM,
        description="Fine-tune open-weight models with you, on your own hardware. `tunesmith` alone starts the "
        "conversation.",
        epilog="Exit codes: 0 done, 1 the step failed, 2 bad input (nothing was started), 3 an approval is pending, "
        "4 a gate refused (of the demo an outcome, so 0).",
        allow_abbrev=False,
        formatter_class=ByGroup,
    )
    parser.add_argument("--version", nargs=0, action=_Version, help="print the version and leave")
    parser.add_argument("-p", metavar="TEXT", dest="prompt", help="one turn of the talk, for scripts; - reads stdin")
    _consent(parser)
    commands = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND", parser_class=Parser)
    _stages(commands)
    _pipelines(commands)
    _set_up(commands)
    _suites(commands)
    _history(commands)
    _asking(commands)
    _serving(commands)
    _other_agents(commands)
    _help(commands)
    return parser


def _json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="JSON on stdout")


def _consent(parser: argparse.ArgumentParser) -> None:
    _json(parser)
    parser.add_argument("--yes", action="store_true", default=argparse.SUPPRESS, help="agree to every step's price")
    parser.add_argument(
        "--max-hours", type=hours, metavar="HOURS", default=argparse.SUPPRESS, help="with --yes: up to this many hours"
    )


SERVE_ACTIONS = ("status", "stop")

if TYPE_CHECKING:
    _Commands = argparse._SubParsersAction[Parser]  # private: argparse has no other name for it


def _add(commands: _Commands, name: str, help_: str) -> Parser:
    return commands.add_parser(name, help=help_, description=help_, allow_abbrev=False)


def _same_as(commands: _Commands, word: str) -> Parser:
    words, summary = SAME_AS[word]
    return _add(commands, word, f"{summary}; the same as `{' '.join(words)}`")


def _stages(commands: _Commands) -> None:
    for entry in catalog.STAGES:
        _stage(_add(commands, entry.name, entry.summary), entry.name)
    pull = _same_as(commands, "pull")
    pull.set_defaults(command="base")
    _stage(pull, "base", bare="model")


def _stage(parser: Parser, name: str, bare: str = "") -> None:
    """Give a parser what a stage takes; the `bare` field is a word without its name."""
    parser.add_argument("--request", metavar="FILE.json", help="the request as a JSON object; flags go over it")
    parser.add_argument(
        "--approve", metavar="HASH", help="carry out the pending step whose plan was shown with this hash"
    )
    _consent(parser)

    def add_fields() -> None:
        from tunesmith.agent.commands.fields import add_flags

        add_flags(parser, catalog.BY_NAME[name].load().request, bare)

    parser.add_fields = add_fields


def _pipelines(commands: _Commands) -> None:
    demo = _add(commands, "demo", "every stage on the bundled model and behaviour")
    demo.add_argument("--fast", action="store_true", help="fewer rows and cases; still every stage")
    _placed(demo)
    _consent(demo)
    run = _add(commands, "run", "carry out a written plan, or go on with a run")
    goes_on = "go on with a run where it stopped: its plan, or its step"
    run.add_argument("--resume", nargs="?", const=True, metavar="RUN", help=goes_on)
    resume = _same_as(commands, "resume")
    resume.add_argument("resume", nargs="?", default=True, metavar="RUN", help="else the newest")
    resume.set_defaults(command="run")
    for parser in (run, resume):
        parser.add_argument("plan", nargs="?", metavar="PLAN.yaml", help="its relative paths start from its own folder")
        _placed(parser)
        _consent(parser)
    teach = _add(commands, "teach", "fine-tune from a description or from your own rows, end to end")
    teach.add_argument(
        "file", nargs="?", metavar="FILE", help="a behaviour.yaml, or what you would say: when, what, examples"
    )
    begin = "write a description to begin with to FILE, else to behaviour.yaml here, and do nothing else"
    teach.add_argument("--example", action="store_true", help=begin)
    _own_rows(teach)
    teach.add_argument(
        "--model", default="", metavar="MODEL",
        help="the base: a folder, a hub id, or a bundled one; the largest that the pace leaves time for here",
    )  # fmt: skip
    writer = "the model that writes rows; the strongest that fits beside it"
    teach.add_argument("--writer", default="", metavar="MODEL", help=writer)
    teach.add_argument("--pace", choices=("fast", "full"), default="full", help="fast: half an hour; full: two hours")
    teach.add_argument("--plan-only", action="store_true", help="show the behaviour and its price, and start nothing")
    whole = "go on to a merged and a quantized model where the adapter on its base would fit too"
    teach.add_argument("--quantize", action="store_const", const="yes", default="auto", help=whole)
    card = "with --plan-only: of a machine with this card, by name or GB, or several: 4090, 24, 2x24"
    teach.add_argument("--card", metavar="CARD", help=card)
    teach.add_argument("--ram", type=gib, metavar="GIB", help="with --plan-only: of a machine with so much RAM")
    _placed(teach)
    _consent(teach)
    _rows(_add(commands, "rows", "training rows: show them, take your own, look through them, write them to a file"))


def _placed(parser: argparse.ArgumentParser) -> None:
    where = "where steps run: here, or on the Ray machine in settings.toml, as far as they can; overrides the plan"
    parser.add_argument("--on", choices=("here", "ray"), default="", help=where)


def _set_up(commands: _Commands) -> None:
    setup = _add(commands, "setup", "install what training and serving need: for the GPU that is found, else the CPU")
    setup.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto: the GPU where one is")
    setup.add_argument("--check", action="store_true", help="say what would be made, and make nothing")


def _rows(rows: argparse.ArgumentParser) -> None:
    _listing_flags(rows)
    actions = rows.add_subparsers(dest="action", metavar="[ACTION]", parser_class=Parser)
    show = _add(actions, "show", "the newest rows, the most suspicious first, and their balance")
    _listing_flags(show, kind=argparse.SUPPRESS, limit=argparse.SUPPRESS)  # else it undoes `rows --limit 5 show`
    importer = _add(actions, "import", "the stage `import`: rows of your own, a file, a folder or a hub data set")
    importer.add_argument("file", metavar="FILE", help="or a folder, or hub:owner/name, which is downloaded")
    importer.add_argument("--behaviour", metavar="FILE", help="the behaviour that they are held to")
    _reading_flags(importer)
    _consent(importer)
    _run(importer, "the newest")
    review = _add(actions, "review", "look through rows, one key a row, and mark them")
    review.add_argument("--web", action="store_true", help="as a page in a browser of this machine")
    review.add_argument("--port", type=port_number, metavar="N", help="with --web: of the page; else a free one")
    _json(review)
    _run(review)
    page = _add(actions, "request", "a page that you paste into an assistant of your choice: it asks for rows")
    page.add_argument("file", metavar="FILE", help="the behaviour, as for `teach`")
    page.add_argument("page", nargs="?", metavar="PAGE.txt", help="else the page is printed")
    page.add_argument("--rows", type=int, default=60, metavar="N", help="that the page asks for (60)")  # in one answer
    _written(page)
    export = _add(actions, "export", "write the kept rows as messages, one a line")
    export.add_argument("file", metavar="FILE.jsonl", help="or -, which prints them")
    _written(export)
    _run(export)


def _own_rows(teach: argparse.ArgumentParser) -> None:
    teach.add_argument(
        "--rows", action="append", metavar="FILE",
        help="rows of your own to train on, in place of written ones: a file, a folder or hub:owner/name; may be "
        "repeated, and needs no other FILE",
    )  # fmt: skip
    teach.add_argument(
        "--blind", type=int, metavar="N", help="of your rows so many become blind cases (else 15 %%, from 10 to 40)"
    )
    teach.add_argument(
        "--contradictory", choices=("drop", "keep"), default="", help="rows of yours that contradict each other"
    )
    _reading_flags(teach)


def _reading_flags(parser: argparse.ArgumentParser) -> None:
    """How rows of one's own are read."""
    parser.add_argument("--map", nargs="+", metavar="PART=COLUMN", help="such as user=question assistant=reply")
    # its own place: `rows` has a --limit too
    parser.add_argument("--limit", dest="records", type=int, metavar="N", help="records taken at most, of each file")
    share = "share of records that may be no rows (else 0.05): these are left out"
    parser.add_argument("--max-unusable-share", type=float, metavar="X", help=share)


def _listing_flags(parser: argparse.ArgumentParser, kind: str = "", limit: int | str = 20) -> None:  # a screen
    parser.add_argument("--kind", default=kind, metavar="KIND", help="only rows with this verdict, such as keep")
    parser.add_argument("--limit", type=int, default=limit, metavar="N", help="rows shown at most")
    _json(parser)
    _run(parser)


def _run(parser: argparse.ArgumentParser, else_: str = "the newest that has rows") -> None:
    parser.add_argument("--run", default=argparse.SUPPRESS, metavar="RUN", help=f"else {else_}")


def _written(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--force", action="store_true", help="replace the file where it is there already")
    _json(parser)


def _newest_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", nargs="?", metavar="RUN", help="else the newest")


def _all(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--all", action="store_true", help="every case, not five of each kind, and all the evidence")


def _suites(commands: _Commands) -> None:
    suite = _add(commands, "suite", "check promptfoo-format suites, or grade stored outputs with one")
    actions = suite.add_subparsers(dest="action", metavar="ACTION", parser_class=Parser, required=True)
    check = _add(actions, "check", "parse suites and list their cases; refuse by name what is not supported")
    check.add_argument("files", nargs="+", metavar="FILE")
    _json(check)
    grade = _add(actions, "grade", "grade stored outputs without calling a model")
    grade.add_argument("file", metavar="FILE")
    grade.add_argument("--outputs", metavar="OUT.jsonl", help='{"case_id", "output"} a line; else `providerOutput`')
    _json(grade)


def _history(commands: _Commands) -> None:
    compare = _add(commands, "compare", "paired statistics and the flip table of two arms, from stored results")
    _newest_run(compare)
    arms = "two of base, prompted, adapter, merged, quantized; else base,adapter"
    compare.add_argument("--arms", metavar="A,B", default="base,adapter", help=arms)
    opened = "show the blind cases of the run from now on; it is recorded"
    compare.add_argument("--open-blind", action="store_true", help=opened)
    _all(compare)
    _json(compare)
    runs = _add(commands, "runs", "list runs, show one, or ask in SQL")
    _json(runs)
    actions = runs.add_subparsers(dest="action", metavar="[ACTION]", parser_class=Parser)
    _json(_add(actions, "list", "all runs, the newest first"))
    show = _same_as(commands, "show")
    show.set_defaults(command="runs", action="show")
    for parser in (_add(actions, "show", "the steps of a run, with times, peaks and artifacts"), show):
        _newest_run(parser)
        _json(parser)
    recover = _add(actions, "recover", "what runs/ holds of a store that was lost; with RUN, take its whole steps back")
    recover.add_argument("runs", nargs="*", metavar="RUN")
    _json(recover)
    sql = _add(actions, "sql", "a read-only question; the views are v_runs, v_steps, v_flips and v_lineage")
    sql.add_argument("query", metavar="SELECT …")
    _json(sql)
    explain = _add(commands, "explain", "what a run's records say of it: findings, their evidence and the next step")
    _newest_run(explain)
    _all(explain)
    _json(explain)
    report = _add(commands, "report", "write a run's report as one HTML file and print its summary")
    _newest_run(report)
    report.add_argument("-o", "--output", metavar="FILE.html", help="else report.html in the run's folder")
    _written(report)
    pack = _add(commands, "pack", "write a run as one archive: suites, answers, gradings, digests")
    _newest_run(pack)
    pack.add_argument("-o", "--output", metavar="FILE", help="else RUN.pack.zip in this folder")
    _written(pack)
    verify = _add(commands, "verify", "check such an archive, on any machine: digests, gradings, statistics")
    verify.add_argument("file", metavar="FILE")
    _json(verify)
    fits = _add(commands, "fits", "check whether a model fits this machine, or a card that you name")
    fits.add_argument(
        "model", nargs="?", default=None, metavar="MODEL",
        help="a hub id (owner/name), a folder, a known name, or a size such as 8b; else the bases that are listed",
    )  # fmt: skip
    fits.add_argument("--revision", default="", metavar="COMMIT", help="for a hub id; the newest where none is given")
    fits.add_argument("--card", default="", metavar="CARD", help="a card by name or GB, or several: 4090, 24, 2x24")
    _json(fits)
    doctor = _add(commands, "doctor", "what this machine, what is installed, and the served driver can really do")
    doctor.add_argument("--driver", action="store_true", help="start the driver where it is not served, and try it out")
    measures = "measure on the GPU what only a card can say, against what is predicted"
    doctor.add_argument("--gpu", action="store_true", help=measures)
    doctor.add_argument("--approve", metavar="HASH", help="carry out the pending --gpu whose plan was shown so")
    _consent(doctor)


def _queue(queue: argparse.ArgumentParser) -> None:
    limit = "carry out what waits, within so many hours of work; asks once for all"
    queue.add_argument("--max-hours", dest="budget_hours", type=hours, metavar="HOURS", help=limit)
    queue.add_argument("--max-disk", type=gigabytes, metavar="GB", help="and within so many GB of what it makes")
    _json(queue)
    yes = "agree to the budget that is named, or go on within the one that was agreed to"
    queue.add_argument("--yes", action="store_true", default=argparse.SUPPRESS, help=yes)
    queue.add_argument("--approve", metavar="HASH", help="agree to the budget that was shown with this hash")
    actions = queue.add_subparsers(dest="action", metavar="[ACTION]", parser_class=Parser)
    _json(_add(actions, "list", "the plans of the queue, with what they took"))
    add = _add(actions, "add", "append a written plan; it is priced, and nothing is started")
    add.add_argument("plan", metavar="PLAN.yaml")
    _json(add)
    remove = _add(actions, "remove", "take a plan that has not begun off the queue")
    remove.add_argument("number", type=int, metavar="N", help="its number in the list")
    _json(remove)


def _asking(commands: _Commands) -> None:
    ask = _add(commands, "ask", "put a message to the model that was made, beside its base; served for it if need be")
    ask.add_argument("text", nargs="+", metavar="TEXT", help="the message; - reads it from stdin")
    arms = "of base, adapter, merged, quantized; else the base and what is deployed or was made last"
    ask.add_argument("--arms", default="", metavar="A,B", help=arms)
    ask.add_argument("--run", default="", metavar="RUN", help="else the newest that made a model")
    as_is = "the words alone, without what the test cases put around a message"
    ask.add_argument("--as-is", action="store_true", help=as_is)
    ask.add_argument("--approve", metavar="HASH", help="agree to starting what was shown with this hash")
    _consent(ask)
    _consent(add_rate_options(_add(commands, "rate", RATE)))


def _help(commands: _Commands) -> None:
    help_ = _add(commands, "help", "print this list, or the help of a command: help teach")
    help_.add_argument("words", nargs="*", metavar="COMMAND")


def _other_agents(commands: _Commands) -> None:
    mcp = _add(commands, "mcp", "the typed tools for another agent, over stdio; the person is asked for each price")
    actions = mcp.add_subparsers(dest="action", metavar="[ACTION]", parser_class=Parser)
    add = _add(actions, "add", "make these tools known to an agent that is installed here")
    _json(add)
    add.add_argument("client", choices=MCP_CLIENTS, metavar="|".join(MCP_CLIENTS))
    add.add_argument("--dry-run", action="store_true", help="show what would be done, and do nothing")


def _serving(commands: _Commands) -> None:
    jobs = _add(commands, "jobs", "running steps: list, follow or stop them")
    _json(jobs)
    actions = jobs.add_subparsers(dest="action", metavar="[ACTION]", parser_class=Parser)
    _json(_add(actions, "list", "steps at work, and those that wait for a yes"))
    for name, help_ in (("attach", "follow a step to its end"), ("stop", "end a step's worker")):
        action = _add(actions, name, help_)
        action.add_argument("step", metavar="STEP")
        _json(action)
    _queue(_add(commands, "queue", "plans that wait for the machine, carried out one by one within one budget"))
    serve = _add(commands, "serve", "serve a model, as `deploy` does; or status, or stop")
    serve.add_argument(
        "what", nargs="?", default=argparse.SUPPRESS, metavar="|".join((*SERVE_ACTIONS, "WHAT")),
        help="an arm, a run or a taught model, as `deploy` takes it; status: what is served; stop: end it",
    )  # fmt: skip
    _stage(serve, catalog.maker_of("deployment"))
