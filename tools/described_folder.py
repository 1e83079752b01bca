"""A described behaviour on disk, and the plan that teaches it: all that lies between a description and a price."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from tunesmith.memory.errors import BadInput
from tunesmith.memory.files import atomic_write, new_folder
from tunesmith.tools.answer_rules import Rule, infer_rules
from tunesmith.tools.arc_plan import ArcPlan, StepSpec, check_arc
from tunesmith.tools.behaviour import load_behaviour
from tunesmith.tools.by_examples import ExampleBehaviour
from tunesmith.tools.described import Description
from tunesmith.tools.suites import BUNDLED
from tunesmith.tools.target_cases import adversarial_text, check_reads_back, hard_messages, spec_text, suite_text

SPEC, SUITE, REHEARSAL = "behaviour.yaml", "suites/target.yaml", "rehearsal.txt"
HARD_SUITE = "suites/adversarial.yaml"
Pace = Literal["fast", "full"]

# Rows, rehearsal rows, learning rate, epochs, calibration samples, cases of each block (0: all).
_PACES: dict[Pace, dict[str, Any]] = {
    "fast": {"rows": 130, "rehearsal": 90, "rate": 0.001, "epochs": 2, "samples": 64, "cases": 40},
    "full": {"rows": 560, "rehearsal": 240, "rate": 0.0009, "epochs": 1.5, "samples": 128, "cases": 0},
}


def rules_of(description: Description) -> tuple[Rule, ...]:
    """The rules that its examples keep and its words state; each may be dropped before it is written."""
    answers = [example.answer for example in description.examples]
    return infer_rules(answers, what=description.what, never=description.never)


def behaviour_of(description: Description, rules: Sequence[Rule] | None = None) -> ExampleBehaviour:
    """The behaviour of a description, with these rules; None: all that can be told from it."""
    kept = rules_of(description) if rules is None else rules
    return ExampleBehaviour(**description.model_dump(), rules=tuple(kept))


def write_behaviour(
    description: Description, parent: Path, *, rules: Sequence[Rule] | None = None, prompts: Sequence[str] = ()
) -> Path:
    """Write the folder of a behaviour below `parent` and return it: its spec, its two suites, ordinary prompts.

    It appears whole or not at all, under the description's name or the next that is free (`name-2`); nothing is ever
    replaced. `prompts` are further target cases. Raises BadInput for a text that a suite cannot hold, or no rule.
    """
    behaviour = behaviour_of(description, rules)
    if not behaviour.rules:
        raise BadInput(
            "nothing about the answers can be checked: keep at least one rule, or say a length, a number of items, "
            "a choice or a fixed beginning"
        )

    def fill(folder: Path) -> None:
        atomic_write(folder / SPEC, spec_text(behaviour))
        atomic_write(folder / SUITE, suite_text(behaviour, prompts))
        atomic_write(folder / HARD_SUITE, adversarial_text(behaviour))
        bundled = Path(str(files("tunesmith.prompts"))) / "demo" / REHEARSAL
        atomic_write(folder / REHEARSAL, bundled.read_bytes())
        if load_behaviour(str(folder)) != behaviour:
            raise BadInput("the description holds a text that its file does not give back; put it in other words")
        check_reads_back(folder / SUITE, [*(example.prompt for example in behaviour.examples), *prompts])
        check_reads_back(folder / HARD_SUITE, [message for _, _, message in hard_messages(behaviour)])

    return new_folder(parent, behaviour.name, fill)


def plan_for(folder: Path, pace: Pace, *, model: str = "bundled", teacher: str = "bundled-driver") -> ArcPlan:
    """The whole arc for the behaviour in `folder`, held to its suites and the bundled general and tool cases.

    `teacher` writes the rows; empty: the model itself does. Raises BadInput for a folder that is no such behaviour.
    """
    behaviour = load_behaviour(str(folder))
    if not isinstance(behaviour, ExampleBehaviour):
        raise BadInput(f"{folder} is not a behaviour by examples; `tunesmith run` carries out a plan of your own")
    folder = folder.expanduser().resolve()  # a worker stands in a folder of its own
    hard = [str(folder / HARD_SUITE)] if (folder / HARD_SUITE).is_file() else []
    suites, sizes = [str(folder / SUITE), *BUNDLED, *hard], _PACES[pace]
    tokens = {"max_tokens": max(96, behaviour.max_tokens)}
    train = {"learning_rate": sizes["rate"], "epochs": sizes["epochs"]}
    generate = {
        "behaviour": str(folder),
        "rows": sizes["rows"],
        "rehearsal_rows": sizes["rehearsal"],
        "writer": "teacher" if teacher else "base",
    }
    steps: list[tuple[str, dict[str, Any]]] = [
        ("inspect", {}),
        ("base", {"model": model}),
        *([("base", {"model": teacher, "role": "teacher"})] if teacher else []),
        ("baseline", {"suites": suites, "cases_per_block": sizes["cases"], **tokens}),
        ("generate", generate),
        ("critique", {"suites": suites}),
        ("preflight", {"rows": 4} if pace == "fast" else {}),
        ("train", train),
        ("evaluate", {"arm": "adapter", **tokens}),
        ("merge", {}),
        ("quantize", {"scheme": "W8A8", "calibration_samples": sizes["samples"], "keep": ["down_proj"]}),
        ("evaluate", {"arm": "quantized", **tokens}),
        ("deploy", {"arm": "quantized"}),
    ]
    specs = tuple(StepSpec(stage=stage, fields=fields) for stage, fields in steps)
    plan = ArcPlan(name=behaviour.name, goal=f"{behaviour.when}: {behaviour.what}", steps=specs)
    check_arc(plan, have=())
    return plan
