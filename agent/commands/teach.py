"""`tunesmith teach FILE`: the whole way for a described behaviour, from its file to the served model, without a talk.

What the file leaves out a model proposes, once, from its words. Code holds it to the examples and shows it beside what
was said; the folder that is written keeps it, and any field may be changed there. The plan is a written plan like any
other, with its prices, its approvals and its record.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
from collections.abc import Collection, Iterable, Sequence
from importlib.resources import files
from pathlib import Path

from rich.console import Group, RenderableType

from tunesmith.agent.commands import reading, render, run_steps
from tunesmith.agent.commands.fits import where
from tunesmith.agent.commands.output import Output
from tunesmith.agent.commands.plan_document import plan_document
from tunesmith.agent.commands.price import forecast_table
from tunesmith.agent.commands.reading import Read
from tunesmith.agent.commands.settings import Settings
from tunesmith.agent.commands.spec_view import PARTS, spec_view
from tunesmith.memory.errors import BadInput, StepFailed
from tunesmith.memory.store import Store
from tunesmith.tools.core.local_paths import existing_path, expanded, is_there
from tunesmith.tools.core.plain_file import write_private_text
from tunesmith.tools.core.similarity import normal
from tunesmith.tools.core.stage import Facts
from tunesmith.tools.data.behaviour import (
    REHEARSAL,
    SPEC_FILE,
    check_answer_lengths,
    document_in,
    is_complete,
    load_behaviour,
    own_suites,
    words_in,
    write_behaviour,
)
from tunesmith.tools.data.proposal import Proposal, words_digest
from tunesmith.tools.data.spec import Spec
from tunesmith.tools.data.spec_suites import SUITE
from tunesmith.tools.data.verify import spec_faults, verified
from tunesmith.tools.evaluation.judge import asks_judge, has_judge, judge_comes
from tunesmith.tools.imports.sources import KINDS
from tunesmith.tools.machine.cards import card_of
from tunesmith.tools.pipeline import there
from tunesmith.tools.pipeline.base_choice import plan_here
from tunesmith.tools.pipeline.behaviour_plan import OwnRows
from tunesmith.tools.pipeline.fits import facts_here
from tunesmith.tools.pipeline.forecast import facts_now, looked_ahead
from tunesmith.tools.pipeline.plan_file import PipelinePlan
from tunesmith.tools.pipeline.workspace import Workspace
from tunesmith.tools.suites.case import Case
from tunesmith.tools.suites.loading import load_named_suites

_NAMES_OF = {"attributes": ("attributes", "fields", "labels"), "answer": ("answer", "template")}
"""Words of a user's file that say something of a part, where it is not the part's own name."""


def teach(args: argparse.Namespace, settings: Settings, store: Store, out: Output) -> int:
    """Propose what is missing, write the behaviour's folder, and carry out its plan; with --plan-only, price it.

    With --example, write a file to begin with and do nothing else.
    """
    if args.example:
        return _write_example(args.file or SPEC_FILE, out)
    path = described_in(args.file)
    stated = stated_parts(path)
    ws = run_steps.workspace_of(args, settings, store, out)
    facts = facts_for(args, ws)
    path, read = read_spec(path, args, settings, ws, out, may_start=not args.plan_only)
    folder, plan = planned(ws, read.spec, path, args, out, facts)
    report, view = document(read, stated, folder, plan), spec_view(read.spec, stated, read.left_out)
    return carry_out(ws, folder, plan, report, view, args, settings, out, facts)


def _write_example(name: str, out: Output) -> int:
    """Write a description that explains itself. Raises BadInput where its file is there already."""
    if is_there(expanded(name)):
        raise BadInput(f"{name} is there already; name another file: tunesmith teach --example my-task.yaml")
    path = write_private_text(name, (files("tunesmith.prompts") / "starter.yaml").read_text(encoding="utf-8"))
    next_ = f"tunesmith teach {shlex.quote(name)} --plan-only"
    out.document({"file": str(path), "next": next_}, render.plain(f"written: {path}; change it, then type: {next_}"))
    return 0


def facts_for(args: argparse.Namespace, ws: Workspace) -> Facts:
    """What is known of the machine that is planned for: this one, or the one that --card and --ram name.

    Raises BadInput where that is no machine, or more than a plan is wanted of it.
    """
    there.check_reached(ws, [{"on": args.on}])
    if args.card is None and args.ram is None:
        return facts_now(ws)
    if args.on or not args.plan_only:
        more = f"--on {args.on}" if args.on else "carrying it out"
        raise BadInput(f"--card and --ram only price a plan for another machine, and {more} does not go with them; "
                       f"{'leave --on out' if args.on else 'give --plan-only too'}")  # fmt: skip
    card = None if args.card is None else card_of(args.card)
    return facts_here(ws.store, vllm=ws.vllm, card=card, ram_gib=args.ram or 0.0)


def described_in(name: str | None) -> Path:
    """The file that describes a behaviour. Raises BadInput where none is named, or one of rows."""
    if not name:
        raise BadInput(
            "teach needs a FILE that says when, what and examples, or rows of your own: --rows mine.jsonl; both may be "
            "given"
        )
    path = existing_path(name, "name a description file, or --rows FILE for rows of your own")
    if path.suffix.lower() in KINDS and path.suffix.lower() != ".json":
        raise BadInput(f"{name} is a file of rows by its name; `tunesmith teach --rows {name}` trains on them")
    return path


def carry_out(
    ws: Workspace, folder: Path, plan: PipelinePlan, report: dict[str, object], behaviour: RenderableType,
    args: argparse.Namespace, settings: Settings, out: Output, facts: Facts,
) -> int:  # fmt: skip
    """Show a behaviour and its plan, and carry it out; with --plan-only, price it for the machine of these facts."""
    store = ws.store
    view = Group(behaviour, render.plain(f"the behaviour is in {folder}; change any field of {SPEC_FILE} there"))
    if not args.plan_only:
        out.console.print(view)
        return run_steps.whole(plan, args, settings, store, out, beside=report)
    prices, why_not = looked_ahead(ws, plan, facts)
    priced = [{"stage": p.stage, "estimated_seconds": p.estimate.seconds if p.estimate else None} for p in prices]
    total = sum(price.estimate.seconds for price in prices if price.estimate)
    elsewhere = () if facts.here else where(facts.machine, args.card and card_of(args.card), here=False)
    out.document(
        {
            **report, "prices": priced, "estimated_seconds": total, **plan_document(plan, prices, facts.machine),
            **({"message": why_not, "exit_code": BadInput.exit_code} if why_not else {}),
        },
        Group(view, *elsewhere, forecast_table(plan.name, prices, plan.reasons)),
    )  # fmt: skip
    if why_not:  # the plan is shown all the same: what it would need is what was asked
        out.say(why_not)
    return BadInput.exit_code if why_not else 0


def read_before(words: Spec, stated: Proposal, home: Path) -> Path | None:
    """The folder of what these very words were read into before, with all that was changed there since."""
    digest = words_digest(words, stated)
    for folder in sorted((home / "behaviours").glob("*")):
        try:
            if (folder / SPEC_FILE).is_file() and load_behaviour(str(folder)).words_sha256 == digest:
                return folder
        except BadInput:
            continue  # another one, broken by hand
    return None


def read_spec(
    path: Path, args: argparse.Namespace, settings: Settings, ws: Workspace, out: Output, *, may_start: bool
) -> tuple[Path, Read]:
    """The spec of a file, and where it lies: as it stands where it is complete, else as somebody reads its words.

    What was read before is not read again. A model that answers already comes first, then one that is started after a
    yes (`may_start`); without any, what the file states and its examples show is taken, and that is said.
    """
    words, stated = words_in(path)
    check_answer_lengths(words)
    path = path if is_complete(words) else read_before(words, stated, settings.home) or path
    return path, _read(path, args, settings, ws, out, may_start=may_start)


def _read(
    path: Path, args: argparse.Namespace, settings: Settings, ws: Workspace, out: Output, *, may_start: bool
) -> Read:
    words, stated = words_in(path)
    if is_complete(words):
        spec = load_behaviour(str(path))
        faults = spec_faults(spec.model_copy(update={"examples": words.examples}))
        return Read(spec, "", tuple(dict.fromkeys((*faults, *verified(words, stated).left_out))))
    marked = words.model_copy(update={"words_sha256": words_digest(words, stated)})
    if not (words.say or {"when", "what"} & stated_parts(path)):
        return Read(verified(words, stated).spec, "", verified(words, stated).left_out)
    why = f"no model answers here{'' if may_start else why_none_is_started(args)}"
    try:
        if endpoint := reading.ready(settings):
            out.say(f"{endpoint.model} reads your words")
            return reading.read_by(ws, endpoint, marked, stated)
        if may_start:
            return reading.read_once_started(settings, ws, run_steps.approver_of(args, out), marked, stated)
    except (BadInput, StepFailed) as error:  # it goes on with what the file states
        why = str(error)
    finally:
        out.let_go()
    checked = verified(words, stated)
    note = f"nobody has read your words ({why}): only what the file states as data and its examples show was taken"
    return Read(checked.spec, "", (note, *checked.left_out))


def why_none_is_started(args: argparse.Namespace) -> str:
    """Why no model is started to read words, and what would start one."""
    if not args.plan_only:
        return ", and beside rows none is started; an endpoint under [driver] in settings.toml reads them"
    asked = "--yes starts one" if getattr(args, "yes", False) else "you are asked whether to start one"
    return f", and --plan-only starts none; without --plan-only {asked}"


def planned(
    ws: Workspace, spec: Spec, path: Path | None, args: argparse.Namespace, out: Output, facts: Facts,
    *, own: OwnRows | None = None, trained: Collection[str] = (),
) -> tuple[Path, PipelinePlan]:  # fmt: skip
    """The behaviour's folder and its plan, with rows of one's own or with rows that are written.

    Messages that are `trained` on are no cases. Raises BadInput, and removes what was written for the refused plan.
    """
    parent = ws.store.home / "behaviours"
    before = {parent, *parent.glob("*")} if parent.exists() else set()
    judged = judge_comes(parent.parent) if own is None or args.writer else has_judge(parent.parent)
    if not judged:
        out.say("no judge is there: what code cannot compare waits for your ratings of the answers (`tunesmith rate`)")
    folder = _folder(spec, path, parent, own=own, trained=trained, judged=judged)
    try:
        return folder, plan_here(
            ws, folder, args.pace, model=args.model, writer=args.writer, say=out.say, facts=facts, judged=judged,
            own=own, on=args.on, quantize=args.quantize,
        )  # fmt: skip
    except BadInput:
        # Nothing was started: what was only written for it goes, what stood there before stays.
        if folder.parent == parent and folder not in before:
            shutil.rmtree(folder if parent in before else parent)
        raise


def stated_parts(path: Path) -> frozenset[str]:
    """The parts of a behaviour that its file says itself; the others are proposed. Raises BadInput for plain text."""
    document, _ = document_in(path)
    given = {name for name, value in document.items() if value} if isinstance(document, dict) else set()
    return frozenset(part for part in PARTS if given & set(_NAMES_OF.get(part, (part,))))


def _folder(
    spec: Spec, path: Path | None, parent: Path, *, own: OwnRows | None, trained: Collection[str], judged: bool
) -> Path:
    """The behaviour's folder: the one that was named, or one of before that holds this very spec and asks nothing that
    is trained on and no judge that is not there; else a new one below `parent`.

    Raises BadInput for what no folder can be made of.
    """
    named = path.parent if path and path.name == SPEC_FILE else path
    if named and (named / SUITE).is_file() and (own or (named / REHEARSAL).is_file()):
        return named
    for folder in sorted(parent.glob(f"{spec.name}*")):
        try:
            if load_behaviour(str(folder)).sha256 != spec.sha256 or not (own or (folder / SUITE).is_file()):
                continue
            cases = _cases(folder)
            if not _messages(cases) & _normal(trained) and (judged or not asks_judge(cases)):
                return folder
        except BadInput:
            continue  # another one, broken by hand
    return write_behaviour(spec, parent, trained=trained, judged=judged)


def _cases(folder: Path) -> Sequence[Case]:
    """Of a behaviour's own suites."""
    suites = own_suites(str(folder))
    return load_named_suites(suites).cases if suites else ()


def _messages(cases: Iterable[Case]) -> set[str]:
    return _normal(str(message.get("content") or "") for case in cases for message in case.messages)


def _normal(texts: Iterable[str]) -> set[str]:
    return {normal(text, digits_count=True) for text in texts}


def document(read: Read, stated: frozenset[str], folder: Path, plan: PipelinePlan) -> dict[str, object]:
    """The behaviour and its plan, as `--json` prints them."""
    return {
        "behaviour": read.spec.name,
        "folder": str(folder),
        "read_by": read.by,
        "left_out": list(read.left_out),
        "spec": read.spec.model_dump(mode="json", exclude_defaults=True),
        "proposed": [name for name in PARTS if name not in stated],
        "plan": plan.model_dump(mode="json"),
    }
