"""`tunesmith teach [FILE] --rows MINE`: the whole way with rows of one's own; none is written.

A description beside them says what the behaviour is; without one the rows show it, and their file names it. All rows
are read before anything is priced: what is wrong with them is asked or said then.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Group, RenderableType

from tunesmith.agent.commands import render, run_steps
from tunesmith.agent.commands.output import Output
from tunesmith.agent.commands.rows import mapping_of
from tunesmith.agent.commands.settings import Settings
from tunesmith.agent.commands.spec_view import spec_view
from tunesmith.agent.commands.teach import carry_out, described_in, document, read_spec, said_parts
from tunesmith.agent.driver.reading import Read
from tunesmith.memory.errors import BadInput
from tunesmith.memory.store import Store
from tunesmith.tools.data.behaviour import load_behaviour, own_suites
from tunesmith.tools.data.import_rows import ImportRequest
from tunesmith.tools.data.scaffold import SUITE, write_behaviour
from tunesmith.tools.data.similarity import normal
from tunesmith.tools.data.spec import Spec
from tunesmith.tools.evaluation.judge import asks_judge, has_judge
from tunesmith.tools.models.base import bundled_model
from tunesmith.tools.pipeline import there
from tunesmith.tools.pipeline.base_choice import plan_here
from tunesmith.tools.pipeline.brought_rows import Brought, Settled, Wanted, bring, settle, spec_of_rows
from tunesmith.tools.suites.case import Case
from tunesmith.tools.suites.loading import BUNDLED, load_named_suites


def teach_rows(args: argparse.Namespace, settings: Settings, store: Store, out: Output) -> int:
    """Read the rows, write the behaviour's folder, and carry out its plan; with --plan-only, price it."""
    ws = run_steps.workspace_of(args, settings, store, out)
    there.check_reached(ws, [{"on": args.on}])
    path = described_in(args.file) if args.file else None
    brought = bring(_wanted(args), ws.ask, out.say)
    read = Read(spec_of_rows(brought, Path(args.rows[0]).stem), "") if path is None else None
    if path is not None:  # no model is started for it: the rows say the rest
        path, read = read_spec(path, args, settings, ws, out, may_start=False)
    assert read is not None
    spec = read.spec
    named = own_suites(str(path)) if path else ()
    said = said_parts(path) if path else frozenset({"examples"})
    cases = load_named_suites((*BUNDLED, *named)).cases
    settled = settle(brought, spec, cases, formed=bool(said & {"attributes", "answer"}))
    parent = store.home / "behaviours"
    before = {parent, *parent.glob("*")} if parent.exists() else set()
    writer = {bundled_model("bundled-driver").title} if args.writer else set()  # fetched by the plan itself
    judged = has_judge(store.home, writer)
    folder = _folder(settled.spec, path, parent, trained=settled.shown, judged=judged)
    try:
        plan = plan_here(
            ws, folder, args.pace, model=args.model, writer=args.writer, say=out.say, judged=judged, own=settled.own,
            on=args.on,
        )  # fmt: skip
    except BadInput:
        if folder.parent == parent and folder not in before:
            shutil.rmtree(folder if parent in before else parent)
        raise
    shown = {**document(replace(read, spec=settled.spec), said, folder, plan), "rows": _document(brought, settled)}
    behaviour = spec_view(settled.spec, said, read.left_out, written=False)
    view = Group(behaviour, _view(brought, settled), *map(render.plain, settled.notes))
    return carry_out(ws, folder, plan, shown, view, args, settings, out)


def _wanted(args: argparse.Namespace) -> Wanted:
    fields = ImportRequest.model_fields
    share = args.max_unusable_share
    return Wanted(
        names=tuple(args.rows),
        mapping=mapping_of(args),
        limit=fields["limit"].default if args.limit is None else args.limit,
        max_unusable_share=fields["max_unusable_share"].default if share is None else share,
        blind=args.blind,
        contradictory=args.contradictory,
    )


def _folder(spec: Spec, path: Path | None, parent: Path, *, trained: Collection[str], judged: bool) -> Path:
    """The behaviour's folder: the one that was named, or one of before that asks nothing that is trained on and no
    judge that is not there; else a new one below `parent`. Raises BadInput."""
    if path is not None and path.is_dir() and (path / SUITE).is_file():
        return path
    for folder in sorted(parent.glob(f"{spec.name}*")):
        try:
            if load_behaviour(str(folder)).sha256 == spec.sha256:
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


def _document(brought: Brought, settled: Settled) -> dict[str, object]:
    own, read = settled.own, brought.survey
    known = {"rows": read.rows, "different": read.different, "same": read.same} if read else {}
    return {**known, "trained_on": own.rows - own.blind, "blind": own.blind, "notes": list(settled.notes)}


def _view(brought: Brought, settled: Settled) -> RenderableType:
    own = settled.own
    trained = f"{own.rows - own.blind} of {brought.survey.rows}" if brought.survey else "those that are left"
    cells = [
        ["rows", brought.wanted.title],
        ["trained on", trained],
        ["blind cases", f"{own.blind}, chosen by what they say; like ones stay together (--blind N)"],
    ]
    return render.rows_table(["your rows", ""], cells, exact=True)
