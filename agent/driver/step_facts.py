"""What a finished step came to, as the driver is told it: its numbers, none of the texts it worked on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tunesmith.agent.commands import render
from tunesmith.memory.json_values import as_list, as_object
from tunesmith.memory.records import Step
from tunesmith.tools.core.format import duration, size
from tunesmith.tools.evaluation.comparison import Comparison

_QUIET = frozenset(
    ["path", "sha256", "artifact", "keys", "key", "comparisons", "suite_sha256", "key_file", "first_answer", "fits"]
)


def step_facts(step: Step) -> dict[str, object]:
    """What a finished step came to, for the driver: its numbers, none of the texts it worked on."""
    result = dict(step.report)
    blocks = result.pop("blocks", None)
    if isinstance(blocks, Mapping):
        result["passed"] = {name: f"{block['passed']} of {block['cases']}" for name, block in blocks.items()}
    stored = map(as_object, as_list(step.report.get("comparisons", [])))
    if verdicts := [render.hop_line(Comparison.from_json(compared)).text.plain for compared in stored]:
        result["verdicts"] = verdicts
    return {"stage": step.stage, "step": step.id, "run": step.run, "took": duration(step.seconds)} | brief(result)


def brief(values: Mapping[str, object]) -> dict[str, object]:
    return {
        name: size(value)
        if name.endswith("bytes") and isinstance(value, int)
        else round(value, 4)
        if isinstance(value, float)
        else value
        for name, value in values.items()
        if name not in _QUIET
        and not (isinstance(value, str) and len(value) > 200)
        and not (isinstance(value, Sequence) and len(value) > 12)
    }
