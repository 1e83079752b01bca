"""What a run's records mean, what each finding proposes, and which of its models may be deployed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from tunesmith.agent.commands.explain import estimated_seconds
from tunesmith.agent.queries import scores
from tunesmith.agent.queries.answer import Context
from tunesmith.agent.queries.facts import Fact, Proposed, Query, Result, RunName
from tunesmith.memory.arms import ARMS
from tunesmith.memory.errors import NotFound
from tunesmith.memory.records import DONE, Run
from tunesmith.memory.store import Store
from tunesmith.tools.evaluation.comparison import WORSE
from tunesmith.tools.evaluation.evidence import evidence_of
from tunesmith.tools.evaluation.findings import Finding, findings
from tunesmith.tools.evaluation.gate import Gate, gate_of

_WEIGHT = (
    "not measured", "not trained", "not learned", "form only", "base too weak", "over-triggers", "forgot",
    "partly learned", "no decision", "lost in quantization", "rows mislabelled", "rows narrow",
    "suite too small",
)  # fmt: skip
"""Kinds of findings with something to do, the weightiest first."""


class FindingsQuery(Query):
    """What a run's records mean and why, what to try next, its price; what may be deployed."""

    kind: Literal["findings"] = "findings"
    run: RunName = ""


def answer(query: FindingsQuery, context: Context) -> Result:
    """The findings of a run, the weightiest first, and its models at the gate. Raises NotFound without a run."""
    try:
        run = scores.evaluated_run(context, query.run)
    except NotFound:
        run = context.run(query.run)
    store, found = context.store, sorted(findings(context.store, run.id), key=_weight)
    arms = [arm for arm in scores.arms_measured(store, run.id) if arm in scores.TUNED]
    gates = {arm: gate_of(store, run.id, arm) for arm in arms}
    open_arms = [arm for arm in arms if not gates[arm].broken]
    of = {
        "run": run.id, "name": run.name, **scores.verdict_fact(store, run.id),
        "rows_to_train_on": _rows(store, run), "rather_deploy": open_arms[-1] if open_arms else "none" if arms else "",
        "try_next": next((one.next.stage for one in found if one.next), ""),
        "not_measured": [arm for arm in ARMS if arm not in scores.arms_measured(store, run.id)],
    }  # fmt: skip
    proposals = {(one.next.stage, repr(one.next.fields)): Proposed(run.id, one.next.stage, one.next.fields)
                 for one in found if one.next}  # fmt: skip
    refused = [why for gate in gates.values() for why in gate.broken]
    return Result(
        (*_models(store, run, gates), *(_fact(context, run, one) for one in found if one.next or one.cases)),
        of,
        says=(*(one.says for one in found), *dict.fromkeys(refused)),
        proposals=tuple(proposals.values()),
    )


def _weight(one: Finding) -> float:
    """Its place among the findings: what the test does not call worse comes behind a verdict that falls short."""
    by_chance = one.kind == "forgot" and one.evidence.get("verdict") != WORSE
    place = _WEIGHT.index(one.kind) if one.kind in _WEIGHT else len(_WEIGHT)
    return _WEIGHT.index("no decision") + 0.5 if by_chance else place


def _rows(store: Store, run: Run) -> int | None:
    """How many rows of the newest writing or import are trained on."""
    written = [step for step in store.steps(run.id, status=DONE) if step.stage in ("generate", "import")]
    return sum(row.usable and row.split == "train" for row in store.rows(written[-1].id)) if written else None


def _fact(context: Context, run: Run, one: Finding) -> Fact:
    """A finding by its name: the cases that it is about, and the step that it proposes with its price."""
    step = one.next
    proposed = {
        "try_next": step.stage, "with": dict(step.fields), "because": step.why,
        "estimated_seconds": estimated_seconds(context.ws, run.id, step),
    } if step else {}  # fmt: skip
    return {"finding": one.kind, "cases": [*one.cases], **proposed}


def _models(store: Store, run: Run, gates: Mapping[str, Gate]) -> Iterator[Fact]:
    """Each arm that was measured: its size, what it passes, the verdict on it, and whether it may be deployed."""
    measured: Sequence[scores.Score] = scores.of_run(store, run.id)
    deployed = [made.meta.get("arm") for made in store.artifacts(run.id, "deployment")]
    for arm in dict.fromkeys(score.arm for score in measured):
        made, gate = store.artifacts(run.id, arm)[-1:], gates.get(arm)
        yield {
            "arm": arm,
            "bytes": made[0].bytes if made else None,
            **{block: next((str(s) for s in measured if (s.arm, s.block) == (arm, block)), None)
               for block in dict.fromkeys(score.block for score in measured)},
            "verdict": evidence_of(store, run.id, arm).verdict.word if gate else "",
            "may_be_deployed": not gate.broken if gate else None,
            "was_deployed": arm in deployed or None,
        }  # fmt: skip
