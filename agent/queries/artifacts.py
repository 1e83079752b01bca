"""What runs left behind: files with their sizes and digests, what was made from what, what takes the disk.

The model that was made, for who wants to use it: how to try it, where it is, and what it changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

from pydantic import Field

from tunesmith.agent.commands import render
from tunesmith.agent.queries.answer import Answer, Context, cite, clip, day, find, named
from tunesmith.agent.queries.arguments import AnyArm, Query, Recorded, RunName
from tunesmith.agent.queries.cases import PAIRS, CasesQuery
from tunesmith.agent.queries.cases import answer as answer_cases
from tunesmith.agent.queries.facts import Result
from tunesmith.agent.queries.machine import deployed_now
from tunesmith.agent.queries.prices import quantized_sizes
from tunesmith.agent.queries.steps import plain
from tunesmith.agent.queries.texts import asked_by, cases_of
from tunesmith.memory.errors import NotFound
from tunesmith.memory.json_values import picked
from tunesmith.memory.questions import provenance_of
from tunesmith.memory.records import Artifact, Run
from tunesmith.memory.store import Store
from tunesmith.tools.core.format import count, size
from tunesmith.tools.evaluation.ask import newest_tuned, run_to_ask
from tunesmith.tools.suites.case import PRIMARY_BLOCK

ArtifactKind = Literal[
    "", "base", "teacher", "suite", "rows", "dataset", "preflight", "adapter", "results", "merged", "quantized",
    "deployment", "release",
]  # fmt: skip


class ArtifactQuery(Query):
    """What a run made, such as its adapter or dataset: where the files lie, their size, digest, date, and what they
    were made from."""

    kind: Literal["artifact"] = "artifact"
    about: Literal["overview", "path", "size", "digest", "lineage", "date"] = "overview"
    artifact: Annotated[Recorded, Field(description="By its id, such as a12")] = ""
    made: Annotated[ArtifactKind, Field(description="By what it is; empty: all that the run made")] = ""
    run: RunName = ""


class DiskUseQuery(Query):
    """What the files of a run, or of all runs, take on the disk, and the largest of them."""

    kind: Literal["disk_use"] = "disk_use"
    about: Literal["total", "largest"] = "total"
    run: Annotated[Recorded, Field(description="Run; empty: all")] = ""
    made: Annotated[ArtifactKind, Field(description="empty: everything")] = ""


def _facts(artifacts: Sequence[Artifact]) -> tuple[Mapping[str, object], ...]:
    """Artifacts as the store has them: their files and the step that made each."""
    return tuple(
        {"artifact": a.id, "made": a.kind, **picked(a, "run", "step", "bytes", "sha256"), "path": str(a.path)}
        for a in artifacts
    )


def answer(query: ArtifactQuery, context: Context) -> Answer:
    """Artifacts of a run, of one kind where it was named. Raises NotFound where there is none."""
    store = context.store
    if query.artifact:
        one = store.artifact(query.artifact)
        return Answer(tuple(_lines(query, store, one)), _facts([one]))
    run = context.run(query.run)
    if not query.run:
        run = next((one for one in context.runs() if store.artifacts(one.id, query.made or None)), run)
    artifacts = store.artifacts(run.id, query.made or None)
    if not artifacts:
        kinds = ", ".join(dict.fromkeys(a.kind for a in store.artifacts(run.id))) or "nothing yet"
        no = "No: " if query.made and query.about == "overview" else ""  # `is there a quantized model?`
        what = query.made or "artifacts"
        raise NotFound(f"{no}{run.id} has no {what}; it has made: {kinds}.{_to_come(query, store, run)}")
    table = [[a.id, a.kind, a.step, size(a.bytes), a.sha256[:12], str(a.path)] for a in artifacts]
    if query.made:
        lines = _lines(query, store, artifacts[-1])
    else:
        large = sorted({a.kind: a for a in artifacts}.values(), key=lambda a: a.bytes, reverse=True)
        total = size(sum(a.bytes for a in artifacts))
        lines = [f"{named(run, 30)} has made {count(len(artifacts), 'artifact')}, {total} in all:",
                 *(f"  {a.kind} {a.id} ({a.step}): {size(a.bytes)}, {a.path}" for a in large[:5]),
                 *(how_to_load(a) for a in artifacts if a.kind == "release")]  # fmt: skip
    columns = ["artifact", "kind", "made by", "bytes", "sha256", "path"]
    return Answer(tuple(lines), _facts(artifacts), lambda: render.rows_table(columns, table, exact=True))


def _to_come(query: ArtifactQuery, store: Store, run: Run) -> str:
    """How large the quantized model would become, by the arithmetic of its formats; empty for anything else."""
    sizes = quantized_sizes(store, run) if query.made == "quantized" else ""
    return f" Quantized it would take {sizes}, by arithmetic; the price of `quantize` says more." if sizes else ""


def disk_use(query: DiskUseQuery, context: Context) -> Answer:
    """What takes the disk: the sum of the files of a run, or of all, and the largest of them. Raises NotFound."""
    store = context.store
    runs = [find(store, query.run)] if query.run else store.runs()
    of_all = {str(a.path): a for run in runs for a in store.artifacts(run.id, query.made or None)}
    artifacts = sorted(of_all.values(), key=lambda a: a.bytes, reverse=True)
    if not artifacts:
        raise NotFound(f"No {query.made or 'file'} was made yet.")
    of = runs[0].id if query.run else f"{len(runs)} run{'s' if len(runs) > 1 else ''}"
    total = (f"The {count(len(artifacts), 'artifact')} of {of} take{'s' if len(artifacts) == 1 else ''} "
             f"{size(sum(a.bytes for a in artifacts))}, models included.")  # fmt: skip
    one = artifacts[0]
    largest = f"The largest is {one.kind} {one.id} of {one.run} ({one.step}): {size(one.bytes)}, {one.path}."
    # the larger ones tell where the room is
    rest = [f"  then {a.kind} {a.id} of {a.run}: {size(a.bytes)}" for a in artifacts[1:4]]
    lines = (largest, *rest, total) if query.about == "largest" else (total, largest, *rest)
    return Answer(lines, _facts(artifacts))


def _lines(query: ArtifactQuery, store: Store, artifact: Artifact) -> list[str]:
    step = store.step(artifact.step)
    name = f"{artifact.kind} model" if artifact.kind in ("base", "teacher", "merged", "quantized") else artifact.kind
    title = f"{clip(artifact.meta['name'], 60)}, " if "name" in artifact.meta else ""
    title = title if artifact.kind in ("base", "teacher") else ""
    weighs = f"{size(artifact.bytes)}{_against(store, artifact)}"
    overview = f"The {name} of {artifact.run} ({artifact.id}) is {title}{weighs}."
    path = how_to_load(artifact) or f"It lies in {artifact.path}."
    line = " ← ".join(
        f"{up['kind']} {up['artifact']} ({up['stage']} {up['step']})"
        for up in provenance_of(store, artifact.id)["lineage"][:6]  # a line; the page has all of it
    )
    lineage = f"Made from: {line}." if line else ""
    date = f"{step.stage} ({cite(step)}) made it {day(step.finished_at)}; sha256 {artifact.sha256[:12]}."
    leads = {
        "digest": [f"The sha256 of {name} {artifact.id} of {artifact.run} is {artifact.sha256}.", path, date],
        "path": [path],
        "lineage": [lineage, date],
        "date": [date],
    }
    lines = [*leads.get(query.about, []), overview, path, date, lineage, _contents(artifact)]
    return [line for line in dict.fromkeys(lines) if line]


def how_to_load(artifact: Artifact) -> str:
    """Where a release lies and how another program takes it; empty for anything else, and where it is gone."""
    if artifact.kind != "release" or not artifact.path.exists():
        return ""
    whole = f"{release_in_short(artifact)}; for another computer copy the whole folder."
    ollama = (
        " Its tokenizer is in the GGUF. There `ollama create NAME -f Modelfile` and then `ollama run NAME` load it."
    )
    return f"{whole}{ollama if artifact.meta.get('format') == 'gguf' else ''}"


def release_in_short(artifact: Artifact) -> str:
    """What a release is in a clause: of a GGUF the file, its size and the bits of its weights; and where it lies."""
    from tunesmith.tools.release.gguf_file import BITS

    files = [file.name for file in artifact.path.glob("*.gguf")]
    bits = [f"{kind}, {n:g} bits a weight" for kind, n in BITS.items() if kind == artifact.meta.get("tensor_type")]
    facts = ", ".join((*files[:1], size(artifact.bytes), *bits))
    return f"The {'GGUF' if files else 'release'} of {artifact.run} ({facts}) lies in {artifact.path}"


def _contents(artifact: Artifact) -> str:
    names = ("name", "parameters", "lora_rank", "scheme", "train_rows", "cases", "url")
    facts = [f"{name.replace('_', ' ')} {plain('', artifact.meta[name])}" for name in names if name in artifact.meta]
    return f"It holds: {', '.join(facts)}." if facts else ""


def _against(store: Store, artifact: Artifact) -> str:
    """Its size against that of what it was made from, where that tells something."""
    of: dict[int, list[str]] = {}
    for kind in _MADE_FROM.get(artifact.kind, ()):
        if (other := store.ancestor(artifact, kind)) is not None and other.bytes:
            of.setdefault(other.bytes, []).append(kind)
    each = (f"{artifact.bytes / n:.0%} of the {' and the '.join(k)} model's {size(n)}" for n, k in of.items())
    return "".join(f", {one}" for one in each)


_MADE_FROM: Mapping[str, tuple[str, ...]] = {
    "quantized": ("merged", "base"), "merged": ("base",), "adapter": ("base",), "release": ("merged",),
}  # fmt: skip


# How to try the model, where it is, and what it changed


_EXAMPLE = "Where is my parcel?"


class TrialQuery(Query):
    """How to try the finished model, where it is, or answers before and after the training next to each other."""

    kind: Literal["trial"] = "trial"
    about: Literal["how", "where", "before_and_after"] = "how"
    run: RunName = ""
    arm: AnyArm = ""


def trial(query: TrialQuery, context: Context) -> Answer | Result:
    """Raises NotFound where no model was made, or none was measured."""
    store = context.store
    if query.about == "before_and_after":
        return _before_and_after(query, context)
    run = find(store, query.run) if query.run else store.run(run_to_ask(store))
    return _where(store, run) if query.about == "where" else _how(store, run)


def _before_and_after(query: TrialQuery, context: Context) -> Result:
    """Three cases as the base and the tuned model answered them, of those that changed, where any did; no blind one
    that was not opened.

    Raises NotFound where nothing was measured.
    """
    run = context.run(query.run, with_stage="evaluate").id
    both = CasesQuery.model_validate({"run": run, "arm": query.arm, "other_arm": "base", "most": PAIRS})
    changed = answer_cases(both.model_copy(update={"outcome": "flipped"}), context)
    return changed if changed.facts else answer_cases(both.model_copy(update={"outcome": "any"}), context)


def _how(store: Store, run: Run) -> Answer:
    """How to put a message to the model of a run, with one of its own as an example, which is no blind case."""
    tuned = newest_tuned(store, run.id)
    open_cases = [c for c in cases_of(store, run.id).values() if c.block == PRIMARY_BLOCK and not c.is_blind]
    example = clip(asked_by(open_cases[0]), 120) if open_cases else ""  # a message in a line
    arms = f"the base and the {tuned.kind} model" if tuned else "the base, the only model so far,"
    served = tuned and any(line["artifact"] == tuned.id and line["healthy"] for line in deployed_now(store))
    lines = [
        f"Type /ask and a message: {arms} of {named(run)} answer it.",
        f"  /ask {example or _EXAMPLE}",
        "It is served now; where the base is not, its start is priced first." if served else
        "What is not served is started for it, at its price and with your yes; it ends after ten idle minutes.",
        'From a shell: tunesmith ask "…". “where is my model?” tells the files.',
    ]  # fmt: skip
    words = f"/ask MESSAGE puts a message to {arms} of {run.id}."
    return Answer(tuple(lines), private=True, open_words=words)


def _where(store: Store, run: Run) -> Answer:
    """Where the model of a run lies, and where it answers or how it comes to."""
    model = newest_tuned(store, run.id)
    if model is None:
        return Answer((f"{named(run)} has made no model of its own yet, only its base.",))
    lines = [f"The {model.kind} model of {run.id} ({model.id}, {size(model.bytes)}) lies in {model.path}."]
    if not model.path.exists():
        return Answer((*lines, f"That folder is gone: {store.step(model.step).stage} has to run again."))
    served = [line for line in deployed_now(store) if line["artifact"] == model.id]
    for line in served:
        health = "" if line["healthy"] else ", and does not answer at the moment"
        lines.append(f"It is served at {line['url']}/v1 as {clip(line['model'], 60)}{health}.")
        lines.append(f"Its key is in {line['key_file']}.")
    if not served:
        lines.append(f"It is not served: “deploy the {model.kind} model” serves it, at its price and with your yes.")
    return Answer((*lines, "“try the model” says how to ask it."))
