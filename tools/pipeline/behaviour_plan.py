"""The plan that teaches a behaviour: all that lies between its folder, perhaps with a person's rows, and a price."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator

from tunesmith.tools.data.behaviour import check_answer_lengths, load_behaviour, load_rehearsal
from tunesmith.tools.data.spec import Spec
from tunesmith.tools.data.spec_suites import HARD_SUITE, NEAR_MISS_SUITE, SUITE, asked_near_misses
from tunesmith.tools.export.deploying import Arm
from tunesmith.tools.pipeline.plan_file import PipelinePlan, StepSpec, check_pipeline, parse_fields
from tunesmith.tools.suites.loading import BUNDLED
from tunesmith.tools.training.defaults import rehearsal_wanted

Pace = Literal["fast", "full"]
Quantizing = Annotated[
    Literal["auto", "yes", "no"], BeforeValidator(lambda said: {"True": "auto", "False": "no"}.get(str(said), said))
]
"""Whether a plan goes on to a quantized model; auto: as base and machine decide. Once it was true or false."""
_EXPORTS, _EXPORTED = ("merge", "quantize"), ("merged", "quantized")
_REHEARSAL_LEAST = 50
"""Fewer prompts are too few kinds of ordinary messages, however few the behaviour's rows are."""

# Rows, near misses, rows held out as cases, cases of each block (0: all): what a pace buys.
# How to train and to quantize is left to the stages, which know the model and the rows by then.
_PACES: dict[Pace, dict[str, int]] = {
    "fast": {"rows": 140, "near": 60, "held_out": 25, "cases": 40},
    "full": {"rows": 600, "near": 120, "held_out": 100, "cases": 0},
}


@dataclass(frozen=True, slots=True)
class OwnRows:
    """A person's rows, in place of rows that a model writes."""

    imports: tuple[Mapping[str, object], ...]
    """Fields of one import step for each source."""
    rows: int
    """Different ones; of a data set that nobody has read yet, a guess."""
    blind: int
    """Of these so many become blind cases."""
    contradictory: Literal["refuse", "drop", "keep"] = "refuse"


def rehearsal_rows(rows: int) -> int:
    """How many ordinary prompts, answered by the base, should hold the model to it beside so many of its behaviour."""
    return max(_REHEARSAL_LEAST, rehearsal_wanted(rows))


def plan_for(
    folder: Path,
    pace: Pace,
    *,
    model: str = "bundled",
    teacher: str = "bundled-1.5b",
    judged: bool = True,
    judge: str = "",
    own: OwnRows | None = None,
    arm: Arm = "quantized",
    smoke: bool = False,
) -> PipelinePlan:
    """The whole pipeline for the behaviour in `folder`, held to its suites and the bundled general and tool cases.

    `teacher` writes the rows; empty: the model itself does. `judged`: a judge reads the held-out cases where code
    cannot tell; `judge` is fetched for that; empty: one is there. With `own` rows none is written. The `arm` is
    deployed, and nothing is made for another; `smoke` as in `smoked`. Raises BadInput for a folder that is no such
    behaviour.
    """
    behaviour = load_behaviour(str(folder))
    check_answer_lengths(behaviour)
    folder = folder.expanduser().resolve()  # a worker stands in a folder of its own
    sizes, near = _PACES[pace], [] if behaviour.every_message else [NEAR_MISS_SUITE]
    named = [str(folder / name) for name in (SUITE, *near, HARD_SUITE) if (folder / name).is_file()]
    suites = [*named[:1], *BUNDLED, *named[1:]]
    tokens = {"max_tokens": max(96, behaviour.max_tokens)}  # 96, as always: other blocks answer in sentences
    # At the fast pace the reading back has to do: a judge costs the start of its server, and a minute for 150 rows.
    reader = "none" if pace == "fast" or own else "teacher" if teacher else "base"
    critique: dict[str, object] = {"suites": suites, "on_leak": "drop", "judge": reader}
    critique["held_out"] = own.blind if own else sizes["held_out"]
    if own:
        critique["contradictory"] = own.contradictory
    steps: list[tuple[str, dict[str, object]]] = [
        ("inspect", {}),
        ("base", {"model": model}),
        # Rows come first: some of them, and what a person marks, are the cases whose right answers are known.
        *_row_steps(folder, behaviour, pace, own, writer="teacher" if teacher else "base"),
        ("critique", {**critique, **({"rubrics": True} if judged else {})}),
        ("baseline", {"suites": suites, "held_out": True, "cases_per_block": sizes["cases"], **tokens}),
        # The honest rival comes before an hour of training; at the fast pace its server start is a tenth of the whole.
        *([("evaluate", {"arm": "prompted", "behaviour": str(folder), **tokens})] if pace == "full" else []),
        # Four rows show what preflight is for: that rows, memory and the first step go through.
        ("preflight", {"rows": 4} if pace == "fast" else {}),
        ("train", {}),
        ("evaluate", {"arm": "adapter", **tokens}),
        ("merge", {}),
        ("quantize", {}),
        ("evaluate", {"arm": "quantized", **tokens}),
        ("deploy", {"arm": "quantized"}),
    ]
    more = (("teacher", teacher), ("driver", judge))
    steps[2:2] = [("base", {"model": model, "role": role}) for role, model in more if model]
    specs = tuple(StepSpec(stage=stage, fields=parse_fields(stage, fields)) for stage, fields in steps)
    goal = f"{behaviour.when}: {behaviour.what}"
    plan = PipelinePlan(name=behaviour.name, goal=goal, steps=smoked(deploying(specs, arm), smoke))
    check_pipeline(plan, have=())
    return plan


def smoked(steps: tuple[StepSpec, ...], wanted: bool) -> tuple[StepSpec, ...]:
    """The steps with the base tried on made-up rows as soon as it is there, where one is to be trained, or without."""
    kept = [one for one in steps if not one.fields.get("made_up")]
    train = next((one.fields for one in kept if one.stage == "train"), None)
    at = [one.stage == "base" and "role" not in one.fields for one in kept]
    if wanted and train is not None and any(at):
        fields = {"made_up": True, **{name: train[name] for name in train if name == "on"}}
        kept.insert(at.index(True) + 1, StepSpec(stage="preflight", fields=fields))
    return tuple(kept)


def deploying(steps: tuple[StepSpec, ...], arm: Arm) -> tuple[StepSpec, ...]:
    """The steps with all that is made for the arm which they are to deploy, and nothing that is made for another."""
    last = next((spec for spec in steps if spec.stage == "deploy"), None)
    if last is None or last.fields.get("arm", "quantized") == arm:
        return steps
    left = [one for one in steps if one.stage not in _EXPORTS and one is not last]
    kept = [one for one in left if one.fields.get("arm") not in _EXPORTED]
    if arm == "quantized":
        tested = next((one.fields for one in kept if one.stage == "evaluate" and one.fields["arm"] == "adapter"), {})
        kept += [StepSpec(stage=stage) for stage in _EXPORTS]
        kept += [StepSpec(stage="evaluate", fields={**tested, "arm": arm})]
    deploy = last.model_copy(update={"fields": {**last.fields, "arm": arm}})
    return (*kept, deploy)


def _row_steps(
    folder: Path, behaviour: Spec, pace: Pace, own: OwnRows | None, *, writer: str
) -> list[tuple[str, dict[str, object]]]:
    """The rows: written, or taken from files, and then only the ordinary ones beside them are made."""
    taught = len(behaviour.near_misses) - len(asked_near_misses(behaviour))
    rows, near = (0, taught) if own else (_PACES[pace]["rows"], _PACES[pace]["near"])
    rehearsal = rehearsal_rows(own.rows - own.blind if own else rows)
    rehearsal = min(rehearsal, len(load_rehearsal(str(folder))) or rehearsal)  # of none the stage says what to do
    if behaviour.every_message:  # no message is to be answered as before
        near = rehearsal = 0
    imports = [("import", {**fields, "behaviour": str(folder)}) for fields in (own.imports if own else ())]
    if not rows + near + rehearsal:
        return imports
    generate: dict[str, object] = {
        "behaviour": str(folder),
        "rows": rows,
        "held_out": 0 if own else _PACES[pace]["held_out"],
        "near_miss_rows": near,
        "rehearsal_rows": rehearsal,
        "writer": writer,
    }
    # Writing is most of the fast pace, and shorter ordinary answers hold the model to its base as well.
    return [*imports, ("generate", {**generate, "ordinary_tokens": 40} if pace == "fast" else generate)]
