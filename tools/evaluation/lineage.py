"""The chain of custody of a run's quality: hop by hop on the same cases, what still leaks, and whether to train at all.

`compared` is what `tunesmith compare` prints: two arms held against each other, and around them what keeps "passes the
suite" and "flawless" apart.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from tunesmith.memory.errors import BadInput, NotFound
from tunesmith.memory.records import Artifact
from tunesmith.memory.store import Store
from tunesmith.tools.evaluation.comparison import compare_run
from tunesmith.tools.evaluation.protocol import CHAIN
from tunesmith.tools.evaluation.statistics import WORSE, reduce_repeats
from tunesmith.tools.suites.case import GUARDED_BLOCKS, LISTED_BLOCKS

GOAL_RATE = 0.9
"""Pass rate on the target that counts as reaching the goal, unless a request says otherwise."""
_LEAK_BLOCKS = ("target", "adversarial")
_REASON_CHARACTERS = 160


def compared(store: Store, run: str, a: str, b: str) -> dict[str, Any]:
    """Two arms of a run, the hops between them, the cases that `b` fails, and advice where the prompted base is one."""
    found = compare_run(store, run, a, b)
    chain = hops(store, run, a, b)
    told = ("arms", "comparable", "differs_in", "blocks", "flips", "left_out")
    return {
        **found,
        "chain": [{name: hop[name] for name in told} for hop in chain],
        "known_limits": known_limits(store, found["steps"][b], b) if b != "base" else [],
        "advice": advice(found, goal_rate(store, found)),
    }


def own_base(store: Store, run: str, kind: str) -> Artifact | None:
    """The base that the run's newest `kind` was made from; None where the run has none, or its origin is not recorded.

    Raises BadInput where the run's base is another model by now: nothing of the one may be held against the other.
    """
    made, bases = store.artifacts(run, kind), store.artifacts(run, "base")
    own = store.ancestor(made[-1], "base") if made else None
    if own and bases and bases[-1].sha256 != own.sha256:
        name, other = (str(base.meta.get("name", base.id)) for base in (own, bases[-1]))
        raise BadInput(
            f"the {kind} {made[-1].id} was made from base {own.id} ({name}), and the base of {run} is now "
            f"{bases[-1].id} ({other}); train again on that, or fetch it into a run of its own with `tunesmith base`"
        )
    return own


def broken_gates(found: Mapping[str, Any]) -> list[str]:
    """Why a comparison must stop a pipeline: its arms may not be compared, or one that gates got worse, over a hop too.

    `found` is what `compared` returns, or a comparison without the hops.
    """
    worse = [
        f"{' → '.join(one['arms'])}, {name} got worse: {block['reason']}"
        for one in (found, *found.get("chain", ()))
        for name, block in one["blocks"].items()
        if block["verdict"] == WORSE and name not in LISTED_BLOCKS
    ]
    return [*([str(found["refused"])] if found["refused"] else []), *worse]


def hops(store: Store, run: str, a: str, b: str) -> list[dict[str, Any]]:
    """Comparisons of neighbours on the way from `a` to `b`, of the arms that were evaluated; none for a single hop."""
    if a not in CHAIN or b not in CHAIN or CHAIN.index(a) >= CHAIN.index(b):
        return []
    way = [a]
    for arm in CHAIN[CHAIN.index(a) + 1 : CHAIN.index(b) + 1]:
        try:
            compare_run(store, run, way[-1], arm)
        except NotFound:
            continue  # this arm was never evaluated
        way.append(arm)
    return [compare_run(store, run, *pair) for pair in itertools.pairwise(way)] if len(way) > 2 else []


def known_limits(store: Store, step: str, arm: str) -> list[dict[str, Any]]:
    """The target and adversarial cases that an arm still fails, each with a reason: where the old behaviour leaks."""
    results = store.results(step, arm)
    reasons = {r.case_id: reason for r in results if (reason := _reason(r.assertions))}
    failed = [v for v in reduce_repeats(map(asdict, results)).values() if v.passed is False and v.block in _LEAK_BLOCKS]
    rows = [{"case_id": v.case_id, "block": v.block, "reason": reasons.get(v.case_id, "")} for v in failed]
    return sorted(rows, key=lambda row: (_LEAK_BLOCKS.index(row["block"]), row["case_id"]))


def _reason(assertions: list[dict[str, Any]]) -> str:
    told = next((str(a.get("reason") or a.get("type")) for a in assertions if not a.get("passed")), "")
    return told if len(told) <= _REASON_CHARACTERS else told[: _REASON_CHARACTERS - 1] + "…"


def goal_rate(store: Store, found: Mapping[str, Any]) -> float:
    """The goal that the evaluation of the prompted arm was asked to hold it to."""
    step = found["steps"].get("prompted")
    return float(store.step(step).request.get("goal_rate", GOAL_RATE)) if step else GOAL_RATE


def advice(found: Mapping[str, Any], goal: float) -> str:
    """Whether the prompted base makes a fine-tune needless; empty where it is not one of the two arms.

    It does where its pass rate on the target reaches `goal` and no guarded block is worse than the base's.
    """
    target = found["blocks"].get("target")
    if "prompted" not in found["arms"] or not target or not target["judged"] or not found["comparable"]:
        return ""
    passed, judged = target["passed"]["prompted"], target["judged"]
    low, high = target["pass_rate_intervals"]["prompted"]
    told = f"the prompt alone passes {passed} of {judged} target cases ({passed / judged:.0%}, 95 % interval "
    told += f"{low:.0%}–{high:.0%})"
    against_base = found["arms"][0] == "base"
    lost = (
        [name for name in GUARDED_BLOCKS if found["blocks"].get(name, {}).get("verdict") == WORSE]
        if against_base
        else []
    )
    if passed < goal * judged:
        return f"{told}, short of the goal of {goal:.0%}: this is what a fine-tune has to beat"
    if lost:
        return f"{told} and reaches the goal of {goal:.0%}, but makes {' and '.join(lost)} worse: a fine-tune may not"
    return (
        f"{told} and reaches the goal of {goal:.0%}: advised against training; deploy the base with this prompt, or "
        "train only to save the prompt's tokens"
    )
