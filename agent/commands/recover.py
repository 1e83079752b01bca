"""`runs recover`: what runs/ holds that the store does not know, and taking it back."""

from __future__ import annotations

import argparse
import json
from collections import Counter

from tunesmith.agent.commands import render
from tunesmith.agent.commands.output import Output
from tunesmith.memory.errors import NotFound
from tunesmith.memory.numbering import folders
from tunesmith.memory.step_records import LeftStep, bring_back, damage, left_steps, take_back
from tunesmith.memory.store import Store
from tunesmith.tools.core.format import count, listed, short, size


def left_behind(store: Store) -> str:
    """A line about runs of a store that was lost; empty where the store knows all that lies in runs/."""
    left = left_steps(store)
    if not left:
        return ""
    runs = list(dict.fromkeys(one.run for one in left))
    named = runs[0] if len(runs) == 1 else f"{runs[0]} to {runs[-1]}"
    return (
        f"runs/ holds {count(len(left), 'step')} of {named} that this store does not know; numbers go on behind "
        "them, and `tunesmith runs recover` lists them"
    )


def recover(args: argparse.Namespace, store: Store, out: Output) -> int:
    """`runs recover` lists; `runs recover RUN…` proves every byte of what whole steps made, and records those.

    Of a run that is named, what people said of it comes back too, and with it the conversations.
    """
    left = left_steps(store)
    if unknown := sorted({*args.runs} - {folder.name for folder in folders(store.home / "runs", "r")}):
        raise NotFound(
            f"runs/ holds nothing of {unknown[0][:40]!r} to take back; `tunesmith runs recover` lists it all"
        )
    chosen = [one for one in left if one.run in args.runs]
    whole: list[LeftStep] = []
    why_not = {one.step: one.why_not for one in left}
    for one in chosen:
        if one.bytes > 1 << 30:
            out.say(f"{one.step}: hashing {size(one.bytes)}")
        why_not[one.step] = damage(store, one)
        whole += [one] if not why_not[one.step] else []
    taken = take_back(store, whole)
    lines = [_line(one, left) | {"why_not": why_not[one.step], "recovered": one.step in taken} for one in left]
    columns = ["run", "step", "stage", "kind", "base", "plan_hash", "bytes", "recovered", "why_not"]
    rows = [[_cell(name, line[name]) for name in columns] for line in lines]
    named = left[0].run if left else "RUN"
    hint = f"`tunesmith runs recover {named}` hashes what a run made and brings back its whole steps and your words"
    said, line = _said(store, args.runs, chosen, taken) if args.runs else ({}, hint)
    shown = render.rows_table(columns, rows) if left else "the store knows every step that lies in runs/"
    out.document({"left_behind": lines, **said}, shown)
    out.say(line)
    return 1 if len(whole) < len(chosen) else 0


def _said(store: Store, runs: list[str], chosen: list[LeftStep], taken: list[str]) -> tuple[dict[str, object], str]:
    """What of people's words and decisions came back and what did not: the counts of each kind, and a line."""
    back, missed = bring_back(store, runs)
    for one in chosen:
        decided = {("approvals", (one.step, row["approval"])) for row in (one.records or {}).get("approvals", ())}
        back |= decided if one.step in taken else set()
        missed |= {(*row, f"{one.step} is not whole") for row in decided - back}
    came, lost = Counter(kind for kind, _ in back), Counter((kind, why) for kind, _, why in missed)
    here = [count(number, kind[:-1]) for kind, number in sorted(came.items())]
    gone = [f"{count(number, kind[:-1])} ({why})" for (kind, why), number in sorted(lost.items())]
    line = f"brought back: {', '.join(here) or 'no words'}; not brought back: {', '.join(gone) or 'none'}"
    if earlier := [one.step for one in chosen if "approvals" not in (one.records or {})]:
        line += f"; approvals of {listed(earlier)}, and words of before this version, were in the lost store alone"
    return {"said": {"brought_back": came, "not_brought_back": Counter(kind for kind, _, _ in missed)}}, line


def _line(one: LeftStep, left: list[LeftStep]) -> dict[str, object]:
    bases = [
        json.loads(str(row["meta"])).get("name", "")
        for other in left
        if other.run == one.run and other.records
        for row in other.records["artifacts"]
        if row["kind"] == "base"
    ]
    stage = str(one.records["steps"][0]["stage"]) if one.records else ""
    kinds = [str(row["kind"]) for row in one.records["artifacts"]] if one.records else one.kinds
    return {
        "run": one.run, "step": one.step, "stage": stage, "kind": ", ".join(kinds), "base": bases[0] if bases else "",
        "plan_hash": one.plan, "store": one.store, "bytes": one.bytes,
    }  # fmt: skip


def _cell(name: str, value: object) -> object:
    if name == "recovered":
        return "yes" if value else ""
    return short(str(value)) if name == "plan_hash" else size(int(str(value))) if name == "bytes" else value
