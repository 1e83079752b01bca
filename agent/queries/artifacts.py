"""What runs left behind: files with their sizes and digests, what was made from what, and what takes the disk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from tunesmith.agent.commands import render
from tunesmith.agent.queries.answer import Answer, Context, Query, RunName, cite, clip, day, find, named
from tunesmith.memory.errors import NotFound
from tunesmith.memory.questions import what_made
from tunesmith.memory.records import Artifact
from tunesmith.memory.store import Store
from tunesmith.tools.core.format import size

Made = Literal[
    "", "base", "teacher", "suite", "rows", "dataset", "preflight", "adapter", "results", "merged", "quantized",
    "deployment",
]  # fmt: skip


class ArtifactQuery(Query):
    """What a run made, such as its adapter or dataset: where the files lie, their size, digest, date, and what they
    were made from."""

    kind: Literal["artifact"] = "artifact"
    about: Literal["overview", "path", "size", "digest", "lineage", "date"] = "overview"
    artifact: Annotated[str, Field(description="By its id, such as a12")] = ""
    made: Annotated[Made, Field(description="By what it is; empty: all that the run made")] = ""
    run: RunName = ""


class DiskUseQuery(Query):
    """What the files of a run, or of all runs, take on the disk, and the largest of them."""

    kind: Literal["disk_use"] = "disk_use"
    about: Literal["total", "largest"] = "total"
    run: Annotated[str, Field(description="Run; empty: all")] = ""
    made: Annotated[Made, Field(description="empty: everything")] = ""


@dataclass(frozen=True, slots=True)
class ArtifactFacts:
    """An artifact: its files and the step that made it."""

    artifact: str
    made: str
    run: str
    step: str
    bytes: int
    sha256: str
    path: str

    @classmethod
    def of(cls, one: Artifact) -> ArtifactFacts:
        """As the store has it."""
        return cls(one.id, one.kind, one.run, one.step, one.bytes, one.sha256, str(one.path))


def answer(query: ArtifactQuery, context: Context) -> Answer:
    """Artifacts of a run, of one kind where it was named. Raises NotFound where there is none."""
    store = context.store
    if query.artifact:
        one = store.artifact(query.artifact)
        return Answer(tuple(_lines(query, store, one)), (ArtifactFacts.of(one),))
    run = context.run(query.run)
    if not query.run:
        run = next((one for one in context.runs() if store.artifacts(one.id, query.made or None)), run)
    made = store.artifacts(run.id, query.made or None)
    if not made:
        kinds = ", ".join(dict.fromkeys(a.kind for a in store.artifacts(run.id))) or "nothing yet"
        raise NotFound(f"{run.id} has no {query.made}; it has made: {kinds}.")
    table = [[a.id, a.kind, a.step, size(a.bytes), a.sha256[:12], str(a.path)] for a in made]
    if query.made:
        lines = _lines(query, store, made[-1])
    else:
        large = sorted({a.kind: a for a in made}.values(), key=lambda a: a.bytes, reverse=True)
        total = size(sum(a.bytes for a in made))
        lines = [f"{named(run, 30)} has made {len(made)} artifacts, {total} in all:",
                 *(f"  {a.kind} {a.id} ({a.step}): {size(a.bytes)}, {a.path}" for a in large[:5])]  # fmt: skip
    columns = ["artifact", "kind", "made by", "bytes", "sha256", "path"]
    return Answer(
        tuple(lines), tuple(ArtifactFacts.of(a) for a in made), lambda: render.rows_table(columns, table, exact=True)
    )


def disk_use(query: DiskUseQuery, context: Context) -> Answer:
    """What takes the disk: the sum of the files of a run, or of all, and the largest of them. Raises NotFound."""
    store = context.store
    runs = [find(store, query.run)] if query.run else store.runs()
    of_all = {str(a.path): a for run in runs for a in store.artifacts(run.id, query.made or None)}
    made = sorted(of_all.values(), key=lambda a: a.bytes, reverse=True)
    if not made:
        raise NotFound(f"No {query.made or 'file'} was made yet.")
    of = runs[0].id if query.run else f"{len(runs)} run{'s' if len(runs) > 1 else ''}"
    total = f"The {len(made)} artifacts of {of} take {size(sum(a.bytes for a in made))}, models included."
    one = made[0]
    largest = f"The largest is {one.kind} {one.id} of {one.run} ({one.step}): {size(one.bytes)}, {one.path}."
    rest = [f"  then {a.kind} {a.id} of {a.run}: {size(a.bytes)}" for a in made[1:4]]
    lines = (largest, *rest, total) if query.about == "largest" else (total, largest, *rest)
    return Answer(lines, tuple(ArtifactFacts.of(a) for a in made))


def _lines(query: ArtifactQuery, store: Store, made: Artifact) -> list[str]:
    step = store.step(made.step)
    name = made.kind if made.kind not in ("base", "teacher", "merged", "quantized") else f"{made.kind} model"
    title = f"{clip(made.meta['name'], 60)}, " if made.kind in ("base", "teacher") and "name" in made.meta else ""
    overview = f"The {name} of {made.run} ({made.id}) is {title}{size(made.bytes)}{_against(store, made)}."
    path = f"It lies in {made.path}."
    line = " ← ".join(
        f"{up['kind']} {up['artifact']} ({up['stage']} {up['step']})" for up in what_made(store, made.id)["lineage"][:6]
    )
    lineage = f"Made from: {line}." if line else ""
    date = f"{step.stage} ({cite(step)}) made it {day(step.finished_at)}; sha256 {made.sha256[:12]}."
    leads = {
        "digest": [f"The sha256 of {name} {made.id} of {made.run} is {made.sha256}.", path, date],
        "path": [path],
        "lineage": [lineage, date],
        "date": [date],
    }
    lines = [*leads.get(query.about, []), overview, path, date, lineage, _contents(made)]
    return [line for line in dict.fromkeys(lines) if line]


def _contents(made: Artifact) -> str:
    names = ("name", "parameters", "lora_rank", "scheme", "train_rows", "cases", "url")
    parts = [f"{name.replace('_', ' ')} {_plain(made.meta[name])}" for name in names if name in made.meta]
    return f"It holds: {', '.join(parts)}." if parts else ""


def _plain(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else clip(value, 60)


def _against(store: Store, made: Artifact) -> str:
    """Its size against that of what it was made from, where that tells something."""
    against = {"quantized": "merged", "merged": "base", "adapter": "base"}.get(made.kind)
    other = store.ancestor(made, against) if against else None
    if other is None or not other.bytes:
        return ""
    return f", {made.bytes / other.bytes:.0%} of the {other.kind} model's {size(other.bytes)}"
