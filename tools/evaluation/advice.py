"""Whether to train at all: what the base leaves to win, and what a prompt alone reaches, before more is bought."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tunesmith.memory.json_values import as_float
from tunesmith.memory.records import Step
from tunesmith.memory.store import Store
from tunesmith.tools.core.stats import flips_to_show
from tunesmith.tools.evaluation.baseline import STAGE, BaselineResult, BlockResult
from tunesmith.tools.evaluation.comparison import WORSE, Comparison
from tunesmith.tools.evaluation.peoples_cases import LEARNED_RATE
from tunesmith.tools.suites.case import GUARDED_BLOCKS, PRIMARY_BLOCK

FLIPS_TO_SHOW = flips_to_show()
"""Cases that must flip, all one way, before the exact test shows a gain: 6 at .05."""


def target_advice(passed: int, judged: int) -> str:
    """What speaks against training by the base's own pass rate on the target; empty where nothing does."""
    failed = judged - passed
    if not judged:
        return "no target case was answered, so no gain can be shown and nothing can be deployed: write target cases"
    line = f"the untouched base passes {passed} of {judged} target cases"
    if failed < FLIPS_TO_SHOW:
        return f"{line}: the {failed} left cannot show a gain, which takes {FLIPS_TO_SHOW}; write harder cases first"
    if passed >= LEARNED_RATE * judged:
        reached = f"{line}, which reaches {LEARNED_RATE:.0%} untrained"
        return f"{reached}: advised against training; use it as it is, or ask for more"
    return ""


def baseline_advice(blocks: Mapping[str, BlockResult]) -> str:
    """`target_advice` by what a baseline found."""
    target = blocks.get(PRIMARY_BLOCK)
    return target_advice(target.passed, target.cases - target.errors) if target else target_advice(0, 0)


def before_spending(done: Sequence[Step]) -> tuple[str, ...]:
    """The note on the plan of a stage that costs much, by the newest baseline among the steps that are done."""
    baselines = [step for step in done if step.stage == STAGE.name]
    report = BaselineResult.of(baselines[-1]) if baselines else None
    return (report.advice,) if report and report.advice else ()


def goal_rate(store: Store, compared: Comparison) -> float:
    """The goal that the evaluation of the prompted arm was asked to hold it to."""
    step = compared.steps.get("prompted")
    return as_float(store.step(step).request.get("goal_rate", LEARNED_RATE)) if step else LEARNED_RATE


def prompt_advice(compared: Comparison, goal: float) -> str:
    """Whether the prompted base makes a fine-tune needless; empty where it is not one of the two arms.

    It does where its pass rate on the target reaches `goal` and no guarded block is worse than the base's.
    """
    target = compared.blocks.get(PRIMARY_BLOCK)
    if "prompted" not in compared.arms or not target or not target.judged or not compared.comparable:
        return ""
    passed, judged = target.passed["prompted"], target.judged
    low, high = target.pass_rate_intervals["prompted"]
    line = f"the prompt alone passes {passed} of {judged} target cases ({passed / judged:.0%}, 95 % interval "
    line += f"{low:.0%}–{high:.0%})"
    against_base = compared.arms[0] == "base"
    lost = [name for name in GUARDED_BLOCKS if compared.verdict_on(name) == WORSE] if against_base else []
    if passed < goal * judged:
        return f"{line}, short of the goal of {goal:.0%}: this is what a fine-tune has to beat"
    if lost:
        return f"{line} and reaches the goal of {goal:.0%}, but makes {' and '.join(lost)} worse: a fine-tune may not"
    return (
        f"{line} and reaches the goal of {goal:.0%}: advised against training; deploy the base with this prompt, or "
        "train only to save the prompt's tokens"
    )
