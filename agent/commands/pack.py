"""`tunesmith pack` and `verify`: a run as one archive, and the check of one that came from another machine."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from tunesmith.agent.commands import render
from tunesmith.agent.commands.output import Output
from tunesmith.agent.commands.queries import run_of
from tunesmith.agent.commands.settings import Settings
from tunesmith.agent.version import VERSION
from tunesmith.memory.store import Store
from tunesmith.tools.core.format import count, size
from tunesmith.tools.core.local_paths import expanded
from tunesmith.tools.core.plain_file import writable


def pack(args: argparse.Namespace, settings: Settings, store: Store, out: Output) -> int:
    """`pack [RUN] [-o FILE]`: its records, suites, answers and comparisons; weights by their digests."""
    from tunesmith.tools.report.pack import pack as write_pack

    run = run_of(args, store, out)
    path = writable(args.output, force=args.force) if args.output else Path.cwd() / f"{run}.pack.zip"
    if not args.output:
        path = writable(str(path), force=args.force)
    index = write_pack(store, run, path, VERSION)
    bytes_ = path.stat().st_size
    out.document({**index, "path": str(path), "bytes": bytes_}, f"{run} is packed into {path} ({size(bytes_)})")
    out.say("it holds messages, answers and rows of yours as text; `tunesmith verify FILE` checks it on any machine")
    return 0


def verify(args: argparse.Namespace, settings: Settings, store: Store, out: Output) -> int:
    """`verify FILE`: 0 where everything holds, 1 where something differs, which is named."""
    from tunesmith.tools.report.verify_pack import verify_pack

    checked = verify_pack(expanded(args.file))
    differs = [asdict(one) for one in checked.differences]
    document = {"holds": checked.holds, "differs": differs, "run": checked.run, "name": checked.name,
                "graded": checked.graded, "judged": checked.judged}  # fmt: skip
    rows = [[one["what"], one["stored"], one["again"]] for one in differs]
    holds = f"{checked.run} ({checked.name}) holds: {count(checked.graded, 'answer')} graded again"
    out.document(document, render.rows_table(["what", "stored", "again"], rows, exact=True) if rows else holds)
    if checked.judged:
        out.say(f"{count(checked.judged, 'grade')} hang on a judge's marks, of which only the sums were checked")
    return 0 if checked.holds else 1
