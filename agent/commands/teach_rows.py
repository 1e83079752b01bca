"""`tunesmith teach [FILE] --rows MINE`: the whole way with rows of one's own; none is written.

A description beside them says what the behaviour is; without one the rows show it, and their file names it. All rows
are read before anything is priced: what is wrong with them is asked or said then.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from rich.console import Group, RenderableType

from tunesmith.agent.commands import render, run_steps
from tunesmith.agent.commands.output import Output
from tunesmith.agent.commands.reading import Read
from tunesmith.agent.commands.rows import mapping_of
from tunesmith.agent.commands.settings import Settings
from tunesmith.agent.commands.spec_view import spec_view
from tunesmith.agent.commands.teach import (
    carry_out,
    described_in,
    document,
    facts_for,
    planned,
    read_spec,
    stated_parts,
)
from tunesmith.memory.store import Store
from tunesmith.tools.data.behaviour import own_suites
from tunesmith.tools.imports.import_rows import ImportRequest
from tunesmith.tools.pipeline.brought_rows import Brought, Settled, Wanted, bring, settle, spec_of_rows
from tunesmith.tools.suites.loading import BUNDLED, load_named_suites


def teach_rows(args: argparse.Namespace, settings: Settings, store: Store, out: Output) -> int:
    """Read the rows, write the behaviour's folder, and carry out its plan; with --plan-only, price it."""
    ws = run_steps.workspace_of(args, settings, store, out)
    facts = facts_for(args, ws)
    path = described_in(args.file) if args.file else None
    brought = bring(_wanted(args), ws.ask, out.say)
    read = Read(spec_of_rows(brought, Path(args.rows[0]).stem), "") if path is None else None
    if path is not None:  # no model is started for it: the rows say the rest
        path, read = read_spec(path, args, settings, ws, out, may_start=False)
    assert read is not None
    spec = read.spec
    named = own_suites(str(path)) if path else ()
    stated = stated_parts(path) if path else frozenset({"examples"})
    cases = load_named_suites((*BUNDLED, *named)).cases
    settled = settle(brought, spec, cases, formed=bool(stated & {"attributes", "answer"}))
    folder, plan = planned(ws, settled.spec, path, args, out, facts, own=settled.own, trained=settled.trained_examples)
    report = {**document(replace(read, spec=settled.spec), stated, folder, plan), "rows": _document(brought, settled)}
    behaviour = spec_view(settled.spec, stated, read.left_out, written=False)
    view = Group(behaviour, _view(brought, settled), *map(render.plain, settled.notes))
    return carry_out(ws, folder, plan, report, view, args, settings, out, facts)


def _wanted(args: argparse.Namespace) -> Wanted:
    fields = ImportRequest.model_fields
    share = args.max_unusable_share
    return Wanted(
        names=tuple(args.rows),
        mapping=mapping_of(args),
        limit=fields["limit"].default if args.records is None else args.records,
        max_unusable_share=fields["max_unusable_share"].default if share is None else share,
        blind=args.blind,
        contradictory=args.contradictory,
    )


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
