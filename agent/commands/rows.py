"""`tunesmith rows`: training rows shown, asked for, taken, looked at and marked, or written to a file."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from tunesmith.agent.commands import render, run_steps
from tunesmith.agent.commands.output import Output
from tunesmith.agent.commands.review import Review, in_terminal
from tunesmith.agent.commands.rows_request import request
from tunesmith.agent.commands.rows_view import balance_of, document, of_kind, review_of, rows_view
from tunesmith.agent.commands.settings import Settings
from tunesmith.agent.commands.terminal import json_text
from tunesmith.memory.errors import BadInput
from tunesmith.memory.files import atomic_write
from tunesmith.memory.json_values import picked
from tunesmith.memory.records import TrainingRow
from tunesmith.memory.store import Store
from tunesmith.tools.core.plain_file import write_private_text
from tunesmith.tools.data.balance import left_out
from tunesmith.tools.pipeline.run_step import run_step
from tunesmith.tools.pipeline.workspace import StepRequest


def rows(args: argparse.Namespace, settings: Settings, store: Store, out: Output) -> int:
    """Dispatch by the action; none shows the rows."""
    if args.action == "import":
        return _import(args, settings, store, out)
    if args.action == "request":
        return request(args, settings, out)
    review = review_of(store, getattr(args, "run", None))  # SUPPRESS: it is there only where it was given
    if args.action == "export":
        return _export(args.file, store.rows(review.step), out, force=args.force)
    if args.action != "review":
        return _show(args, review, out)
    if args.port is not None and not args.web:
        raise BadInput(f"--port {args.port} is the page's; give --web too, or leave it out")
    if args.web:
        from tunesmith.agent.commands.review_web import serve

        serve(review, out, port=args.port or 0)
    else:
        in_terminal(review, out)
    summary = review.ended()
    out.document({**_identity(review), "marks": dict(review.mark_counts)}, render.plain(summary))
    return 0


def _identity(review: Review) -> dict[str, object]:
    return {**picked(review, "run", "step", "behaviour"), "rows": len(review.suspects)}


def _show(args: argparse.Namespace, review: Review, out: Output) -> int:
    if args.limit < 1:
        raise BadInput(f"--limit takes a number of rows from 1 on, not {args.limit}")
    page = of_kind(review, args.kind)[: args.limit]
    value = {
        **_identity(review),
        "balance": balance_of(review),
        "shown": [document(review, suspect) for suspect in page],
    }
    out.document(value, rows_view(review, page))
    return 0


def _import(args: argparse.Namespace, settings: Settings, store: Store, out: Output) -> int:
    """One step of the stage `import`."""
    given: dict[str, object] = {"source": args.file, "behaviour": args.behaviour, "limit": args.records}
    given["max_unusable_share"] = args.max_unusable_share
    given["mapping"] = mapping_of(args) or None
    fields = {name: value for name, value in given.items() if value is not None}
    run = getattr(args, "run", None)  # SUPPRESS: it is there only where it was given
    request = StepRequest.given("import", {**fields, **({"run": run} if run else {})})
    ws = run_steps.workspace_of(args, settings, store, out)
    try:
        ended = run_step(ws, request, run_steps.approver_of(args, out)).done()
    except KeyboardInterrupt:  # only the watching ends: the step goes on
        return run_steps.interrupted(store, out)
    out.document(run_steps.step_document(store, ended), render.result_table(ended.report))
    return 0


def mapping_of(args: argparse.Namespace) -> dict[str, str]:
    """Part → column, as --map names them. Raises BadInput."""
    pairs = [pair.partition("=") for pair in args.map or ()]
    if odd := next((pair for pair in pairs if not pair[0] or not pair[2]), None):
        raise BadInput(f"--map takes part=COLUMN, such as user=question, not {''.join(odd)!r}")
    return {part: column for part, _, column in pairs}


def exported(rows: Sequence[TrainingRow]) -> list[dict[str, object]]:
    """The rows that critique kept (before it, those without a known fault) as messages, one a line, as import takes
    them."""
    judged = any(row.verdict for row in rows)
    return [
        {"id": row.row_id, "origin": row.origin, "messages": [*row.prompt, *row.completion],
         **({"tools": row.attributes.tools} if row.attributes.tools else {})}
        for row in rows if row.usable or not (judged or left_out(row))
    ]  # fmt: skip


def kept_rows_file(store: Store, run: str) -> str:
    """A file in the home with the rows that a run kept, for an import. Raises NotFound for a run without rows."""
    lines = exported(store.rows(review_of(store, run).step))
    file = store.home / "exports" / f"{run}.jsonl"
    file.parent.mkdir(mode=0o700, exist_ok=True)
    atomic_write(file, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), mode=0o600)
    return str(file)


def _export(name: str, rows: Sequence[TrainingRow], out: Output, *, force: bool) -> int:
    """Write the kept rows to a file, or to stdout for `-`: there as they are, or within the document of `--json`."""
    lines = exported(rows)
    if name != "-":
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        path = write_private_text(name, text, force=force)
        out.document({"file": str(path), "rows": len(lines)}, render.plain(f"{len(lines)} rows are in {path}"))
    elif out.wants_json:
        out.document({"file": name, "rows": len(lines), "lines": lines}, render.plain(""))
    else:
        sys.stdout.writelines(json_text(line) + "\n" for line in lines)
    return 0
