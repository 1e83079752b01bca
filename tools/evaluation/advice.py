"""Whether a base leaves a fine-tune anything to win: said once its baseline is known, before more is bought."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tunesmith.memory.records import Step
from tunesmith.tools.core.stats import ALPHA, mcnemar_exact
from tunesmith.tools.evaluation.lineage import GOAL_RATE
from tunesmith.tools.suites.case import PRIMARY_BLOCK

FLIPS_TO_SHOW = next(flips for flips in range(1, 64) if mcnemar_exact(flips, 0) < ALPHA)
"""Cases that must flip, all one way, before the exact test shows a gain: 6 at .05."""
_SPENDS = ("generate", "preflight", "train")


def headroom(passed: int, judged: int, goal: float = GOAL_RATE) -> str:
    """What speaks against training by the base's own pass rate on the target; empty where nothing does."""
    failed = judged - passed
    if not judged:
        return "no target case was answered, so no gain can be shown and nothing can be deployed: write target cases"
    told = f"the untouched base passes {passed} of {judged} target cases"
    if failed < FLIPS_TO_SHOW:
        return f"{told}: the {failed} left cannot show a gain, which takes {FLIPS_TO_SHOW}; write harder cases first"
    if passed >= goal * judged:
        return f"{told}, which reaches {goal:.0%} untrained: advised against training; use it as it is, or ask for more"
    return ""


def baseline_advice(blocks: Mapping[str, Any]) -> str:
    """`headroom` by a baseline's counts, each block with `cases`, `passed` and `errors`."""
    counts = blocks.get(PRIMARY_BLOCK)
    return headroom(counts["passed"], counts["cases"] - counts["errors"]) if counts else headroom(0, 0)


def before_spending(stage: str, done: Sequence[Step]) -> tuple[str, ...]:
    """The note on the plan of a stage that costs much, by the newest baseline among the steps that are done."""
    baselines = [step for step in done if step.stage == "baseline"]
    if stage not in _SPENDS or not baselines:
        return ()
    advice = (baselines[-1].result or {}).get("advice")
    return (str(advice),) if advice else ()
