"""Which stages could follow in a run, by what it has and what was measured of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from tunesmith.memory.records import DONE, Artifact, Run
from tunesmith.memory.store import Store
from tunesmith.tools.pipeline import catalog
from tunesmith.tools.pipeline.progress import is_current


def next_stages(store: Store, run: Run | None) -> list[str]:
    """What could follow, the likeliest first: the first stage that has what it needs and has not made what it makes."""
    if run is None:
        return [entry.name for entry in catalog.STAGES if entry.makes and not entry.needs]
    newest = {artifact.kind: artifact for artifact in store.artifacts(run.id)}
    kinds = {kind for kind, artifact in newest.items() if _of_newest_adapter(store, artifact, newest)}
    due, following = [], []
    for entry in catalog.STAGES:
        declared = entry.load()
        if declared.measures:
            done = [step for step in store.steps(run.id, status=DONE) if step.stage == entry.name]
            measured = {step.arm for step in done if is_current(store, step)}
            there = [kind for kind in declared.measures if kind in kinds]
            # Of what lies between the first and the last, the last one's test is proof enough.
            due += [entry.name] if {*there[:1], *there[-1:]} - measured else []
        elif entry.makes and entry.makes not in kinds and kinds.issuperset((*entry.needs, *declared.usually_after)):
            following += [] if _too_late(entry, kinds) else [entry.name]
    return due + following


def chain_ahead(store: Store, run: Run) -> list[tuple[str, str]]:
    """The usual steps that a run has ahead until it is served, each with the arm that it measures or nothing.

    Of a run without rows only what could follow at once: where rows come from is for its user to say.
    """
    first = next_stages(store, run)
    newest = {artifact.kind: artifact for artifact in store.artifacts(run.id)}
    kinds = {kind for kind, artifact in newest.items() if _of_newest_adapter(store, artifact, newest)}
    test = next(entry for entry in catalog.STAGES if entry.load().measures)
    arms = test.load().measures
    ahead = [(test.name, max(kinds & {*arms}, key=arms.index))] if test.name in first else []
    if "rows" not in kinds:
        return [*ahead, *((stage, "") for stage in first if stage != test.name)]
    for entry in catalog.STAGES:
        lacking = bool(entry.makes) and entry != test and entry.makes not in kinds
        if lacking and kinds >= {*entry.needs, *entry.load().usually_after} and not _too_late(entry, kinds):
            ahead += [(entry.name, ""), *([(test.name, entry.makes)] if entry.makes in arms else [])]
            kinds.add(entry.makes)
    return ahead


def _too_late(entry: catalog.Entry, kinds: Collection[str]) -> bool:
    """Whether the run has gone on without a thing: its training has ended without a smoke test."""
    later = catalog.STAGES[catalog.STAGES.index(entry) + 1 :]
    needed = any(entry.makes in (*one.needs, *one.load().usually_after) for one in later)
    return not needed and any(one.makes in kinds for one in later if one.needs == entry.needs)


def _of_newest_adapter(store: Store, artifact: Artifact, newest: Mapping[str, Artifact]) -> bool:
    """Whether an artifact holds the run's newest adapter, or has nothing to do with any."""
    own = store.ancestor(artifact, "adapter")
    return own is None or "adapter" not in newest or own.id == newest["adapter"].id
