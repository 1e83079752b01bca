"""The plan that teaches a described behaviour: all that lies between a description and a price."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from tunesmith.tools.data.behaviour import load_behaviour
from tunesmith.tools.data.scaffold import HARD_SUITE, NEAR_MISS_SUITE, SUITE, check_answer_lengths
from tunesmith.tools.pipeline.plan_file import PipelinePlan, StepSpec, check_pipeline, parse_fields
from tunesmith.tools.suites.loading import BUNDLED

Pace = Literal["fast", "full"]


# Rows, near misses, rehearsal rows, rows held out as cases, calibration samples, cases of each block (0: all): what a
# pace buys. How to train and to quantize is left to the stages, which know the model and the rows by then.
_PACES: dict[Pace, dict[str, int]] = {
    "fast": {"rows": 140, "near": 60, "rehearsal": 50, "held_out": 25, "samples": 64, "cases": 40},
    "full": {"rows": 600, "near": 120, "rehearsal": 180, "held_out": 100, "samples": 128, "cases": 0},
}


def plan_for(
    folder: Path, pace: Pace, *, model: str = "bundled", teacher: str = "bundled-1.5b", judged: bool = True
) -> PipelinePlan:
    """The whole pipeline for the behaviour in `folder`, held to its suites and the bundled general and tool cases.

    `teacher` writes the rows; empty: the model itself does. `judged`: a judge reads the held-out cases where code
    cannot tell. Raises BadInput for a folder that is no such behaviour.
    """
    behaviour = load_behaviour(str(folder))
    check_answer_lengths(behaviour)
    folder = folder.expanduser().resolve()  # a worker stands in a folder of its own
    sizes, near = _PACES[pace], [NEAR_MISS_SUITE]
    if behaviour.every_message:  # no message is to be answered as before
        sizes, near = {**sizes, "near": 0, "rehearsal": 0}, []
    beside = [str(folder / name) for name in (*near, HARD_SUITE) if (folder / name).is_file()]
    suites = [str(folder / SUITE), *BUNDLED, *beside]
    tokens = {"max_tokens": max(96, behaviour.max_tokens)}
    generate: dict[str, object] = {
        "behaviour": str(folder),
        "rows": sizes["rows"],
        "near_miss_rows": sizes["near"],
        "rehearsal_rows": sizes["rehearsal"],
        "writer": "teacher" if teacher else "base",
    }
    if pace == "fast":
        generate["ordinary_tokens"] = 40
    # At the fast pace the reading back has to do: a judge costs the start of its server, and a minute for 150 rows.
    judge = "none" if pace == "fast" else "teacher" if teacher else "base"
    critique: dict[str, object] = {"suites": suites, "on_leak": "drop", "held_out": sizes["held_out"], "judge": judge}
    steps: list[tuple[str, dict[str, object]]] = [
        ("inspect", {}),
        ("base", {"model": model}),
        # Rows come first: some of them, and what a person marks, are the cases whose right answers are known.
        ("generate", generate),
        ("critique", {**critique, **({"rubrics": True} if judged else {})}),
        ("baseline", {"suites": suites, "held_out": True, "cases_per_block": sizes["cases"], **tokens}),
        # The honest rival comes before an hour of training; at the fast pace its server start is a tenth of the whole.
        *([("evaluate", {"arm": "prompted", "behaviour": str(folder), **tokens})] if pace == "full" else []),
        ("preflight", {"rows": 4} if pace == "fast" else {}),
        ("train", {}),
        ("evaluate", {"arm": "adapter", **tokens}),
        ("merge", {}),
        ("quantize", {"calibration_samples": sizes["samples"]}),
        ("evaluate", {"arm": "quantized", **tokens}),
        ("deploy", {"arm": "quantized"}),
    ]
    if teacher:
        steps.insert(2, ("base", {"model": teacher, "role": "teacher"}))
    specs = tuple(StepSpec(stage=stage, fields=parse_fields(stage, fields)) for stage, fields in steps)
    plan = PipelinePlan(name=behaviour.name, goal=f"{behaviour.when}: {behaviour.what}", steps=specs)
    check_pipeline(plan, have=())
    return plan
