"""What runs left behind: files with their sizes and digests, what was made from what, what takes the disk; and the
model that was made, for who wants to use it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Literal

from pydantic import Field

from tunesmith.agent.queries.answer import Context, find
from tunesmith.agent.queries.facts import Fact, Query, Recorded, Result, RunName
from tunesmith.agent.queries.texts import asked_by, cases_of
from tunesmith.memory.errors import NotFound
from tunesmith.memory.json_values import picked
from tunesmith.memory.questions import provenance_of
from tunesmith.memory.records import Artifact
from tunesmith.memory.store import Store
from tunesmith.tools.core.format import listed
from tunesmith.tools.evaluation.ask import newest_tuned, run_to_ask
from tunesmith.tools.models.known_bases import known_base
from tunesmith.tools.suites.case import PRIMARY_BLOCK

ArtifactKind = Literal[
    "", "base", "teacher", "suite", "rows", "dataset", "preflight", "adapter", "results", "merged", "quantized",
    "deployment", "release",
]  # fmt: skip
_MADE_FROM: Mapping[str, tuple[str, ...]] = {
    "quantized": ("merged", "base"), "merged": ("base",), "adapter": ("base",), "release": ("merged",),
}  # fmt: skip
"""Kind → those whose size its own is set beside."""
_KEPT = ("parameters", "lora_rank", "scheme", "train_rows", "cases", "url", "format", "tensor_type")
"""What an artifact's record says of itself beside its name."""
_MOST_FILES = 12


class ArtifactQuery(Query):
    """What a run made: where it lies, size, digest, date, licence, what it was made from."""

    kind: Literal["artifact"] = "artifact"
    artifact: Recorded = ""
    made: Annotated[ArtifactKind, Field(description="empty: all that the run made")] = ""
    run: RunName = ""


class DiskUseQuery(Query):
    """What the files of a run, or of all, take on the disk."""

    kind: Literal["disk_use"] = "disk_use"
    run: Annotated[Recorded, Field(description="Run; empty: all")] = ""
    made: Annotated[ArtifactKind, Field(description="empty: everything")] = ""


class TrialQuery(Query):
    """The finished model, to be used: where it lies and answers, its key, how to ask it."""

    kind: Literal["trial"] = "trial"
    run: RunName = ""


def answer(query: ArtifactQuery, context: Context) -> Result:
    """Artifacts of a run, of one kind where it was named. Raises NotFound where there is none."""
    store = context.store
    if query.artifact:
        one = store.artifact(query.artifact)
        return Result(({**_in_short(store, one), **_whole(store, one)},), {"run": one.run})
    run = context.run(query.run)
    having = [run] if query.run else [one for one in context.runs() if store.artifacts(one.id, query.made or None)]
    run = next(iter(having), run)
    artifacts = store.artifacts(run.id, query.made or None)
    if not artifacts:
        there = listed([*dict.fromkeys(a.kind for a in store.artifacts(run.id))]) or "nothing yet"
        raise NotFound(f"{run.id} has no {query.made or 'artifacts'}; it has made: {there}.")
    facts = [{**_in_short(store, a), **(_whole(store, a) if query.made else {})} for a in reversed(artifacts)]
    of = {"run": run.id, "name": run.name, "folder": str(store.home / "runs" / run.id)}
    return Result(tuple(facts), {**of, "artifacts": len(artifacts), "bytes": sum(a.bytes for a in artifacts)})


def disk_use(query: DiskUseQuery, context: Context) -> Result:
    """The files of a run, or of all, and their sum. Raises NotFound."""
    import shutil

    store = context.store
    runs = [find(store, query.run)] if query.run else store.runs()
    of_all = {str(a.path): a for run in runs for a in store.artifacts(run.id, query.made or None)}
    artifacts = sorted(of_all.values(), key=lambda a: a.bytes, reverse=True)
    if not artifacts:
        raise NotFound(f"No {query.made or 'file'} was made yet.")
    of = {"run": query.run, "runs": len(runs), "made": query.made, "artifacts": len(artifacts),
          "bytes": sum(a.bytes for a in artifacts), "disk_free_bytes": shutil.disk_usage(store.home).free}  # fmt: skip
    facts = tuple({"run": a.run, **_in_short(store, a)} for a in artifacts[:_MOST_FILES])
    more = len(artifacts) - len(facts)
    return Result(facts, of, left_out={"smaller artifacts": more} if more else {})


def trial(query: TrialQuery, context: Context) -> Result:
    """How to use the newest model of a run; a message of its own kind, which is no blind case, is an example.

    Raises NotFound where no model was made.
    """
    from tunesmith.agent.commands import served_models

    store = context.store
    run = find(store, query.run) if query.run else store.run(run_to_ask(store))
    model = newest_tuned(store, run.id)
    fact: dict[str, object] = {"model": model.kind if model else "base", "ask_with": "/ask MESSAGE",
                               "from_a_shell": f'tunesmith ask --run {run.id} "MESSAGE"'}  # fmt: skip
    if model:
        served = next((one for one in served_models.status(store) if one["artifact"] == model.id), None)
        fact |= {"artifact": model.id, **picked(model, "bytes"), "path": str(model.path)}
        fact |= {"files_are_there": model.path.exists(), "made_by": store.step(model.step).stage}
        fact |= {"served": served is not None}
        if served:
            fact |= {"url": f"{served['url']}/v1", "answers": served["healthy"], "served_as": served["model"]}
            fact |= {"key_file": served["key_file"]}
    open_cases = [c for c in cases_of(store, run.id).values() if c.block == PRIMARY_BLOCK and not c.is_blind]
    example = tuple({"for_example": asked_by(case)} for case in open_cases[:1])
    return Result((fact,), {"run": run.id, "name": run.name}, texts=example)


def _in_short(store: Store, artifact: Artifact) -> Fact:
    step = store.step(artifact.step)
    return {
        "artifact": artifact.id, "kind": artifact.kind, "name": artifact.meta.get("name"), "step": step.id,
        "stage": step.stage, "made_at": step.finished_at, **picked(artifact, "bytes"),
    }  # fmt: skip


def _whole(store: Store, artifact: Artifact) -> Fact:
    """The rest of what is known of an artifact."""
    lineage = [
        f"{up['kind']} {up['artifact']} ({up['stage']} {up['step']})"
        for up in provenance_of(store, artifact.id)["lineage"] if up["depth"]
    ]  # fmt: skip
    known = {name: artifact.meta.get(name) for name in _KEPT}
    return {
        "path": str(artifact.path), "files_are_there": artifact.path.exists(), **picked(artifact, "sha256"),
        **dict(_shares(store, artifact)), **known, "license": _license(artifact), **_released(artifact),
        "made_from": "; ".join(lineage),
    }  # fmt: skip


def _shares(store: Store, artifact: Artifact) -> Iterator[tuple[str, float]]:
    """Its size as a share of what it was made from, where that tells something."""
    for kind in _MADE_FROM.get(artifact.kind, ()):
        if (other := store.ancestor(artifact, kind)) is not None and other.bytes:
            yield f"size_of_{kind}_share", artifact.bytes / other.bytes


def _license(artifact: Artifact) -> object:
    """The licence of a model as its package or its maker's card names it; None where it is not known."""
    known = known_base(str(artifact.meta.get("source", "")))
    return artifact.meta.get("license") or (known.license if known else None)


def _released(artifact: Artifact) -> Fact:
    """Of a release that is there the GGUF file, its bits a weight, and what loads the folder on another computer."""
    if artifact.kind != "release" or not artifact.path.exists():
        return {}
    from tunesmith.tools.release.gguf_file import BITS

    bits = next((n for kind, n in BITS.items() if kind == artifact.meta.get("tensor_type")), None)
    loads = "ollama create NAME -f Modelfile; ollama run NAME" if artifact.meta.get("format") == "gguf" else None
    return {"files": [file.name for file in artifact.path.glob("*.gguf")], "bits_a_weight": bits, "loaded_with": loads}
