"""`runs recover`: what runs/ holds that the store does not know, and taking it back."""

from __future__ import annotations

import argparse
import json

from tunesmith.agent.commands import render
from tunesmith.agent.commands.output import Output
from tunesmith.memory.errors import NotFound
from tunesmith.memory.step_records import LeftStep, damage, left_steps, take_back
from tunesmith.memory.store import Store
from tunesmith.tools.core.format import count, short, size


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
    """`runs recover` lists; `runs recover RUN…` proves every byte of what whole steps made, and records those."""
    left = left_steps(store)
    if unknown := sorted({*args.runs} - {one.run for one in left}):
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
    if not left:
        out.document({"left_behind": []}, "the store knows every step that lies in runs/")
        return 0
    out.document({"left_behind": lines}, render.rows_table(columns, rows))
    if not chosen:
        out.say(f"`tunesmith runs recover {left[0].run}` hashes what a run made and takes its whole steps back")
    return 1 if len(whole) < len(chosen) else 0


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
