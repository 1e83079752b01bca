"""Would a model be trained, measured, merged, quantized and served: on this machine, or on another card.

The stages themselves are asked: each plans its step on what the steps before it should leave, as in a forecast, so that
an answer says what a plan says, in memory, verdict, time and settings that would fit. A config is enough: a published
family's, a folder's, or one that is read from the hub; no weights are downloaded.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Literal, NamedTuple

from tunesmith.memory.errors import BadInput
from tunesmith.memory.json_values import picked
from tunesmith.memory.store import Store
from tunesmith.tools.core.machine import Gpu, Machine, usable_bytes, whole_bytes
from tunesmith.tools.core.stage import GIB, UNMEASURED, Facts, Plan, expected
from tunesmith.tools.evaluation import baseline
from tunesmith.tools.export import quantize
from tunesmith.tools.export.deploying import arm_for
from tunesmith.tools.machine.cards import Card
from tunesmith.tools.models.base import BaseContext
from tunesmith.tools.models.fitting import lack_sentences
from tunesmith.tools.models.known_bases import KnownBase, known_bases
from tunesmith.tools.models.measuring import FOUR, MEASURED_AT, SCHEME, SIXTEEN, Asked
from tunesmith.tools.models.model_names import NamedModel
from tunesmith.tools.models.schemes import SCHEMES
from tunesmith.tools.pipeline import planning_facts
from tunesmith.tools.pipeline.catalog import BY_NAME
from tunesmith.tools.serving.eviction import machine_for_a_step
from tunesmith.tools.suites.loading import usual_suite
from tunesmith.tools.training.train import TrainRequest

ROWS, ROW_TOKENS = 600, 128
"""Of the data set that training, merging and quantizing are planned for: those of the full pace, of usual length."""
_ANY_VLLM = "vllm"
_NOWHERE = Machine("", 1, 0, 0, 0, 0)

Work = Literal["base", "preflight", "train", "measure", "merge", "quantize", "serve"]
PREPARING = ("base", "preflight")
"""What no use is in itself, and has to fit all the same."""


class Step(NamedTuple):
    """A step of the way with its usual settings."""

    stage: str
    fields: Mapping[str, object] = MappingProxyType({})
    serves: str = ""
    """How the model is quantized that it serves."""


STEPS: Mapping[str, Step] = {
    "base": Step("base", {"model": "owner/model", "revision": "0" * 40}),  # a commit, so that no hub is asked for one
    "baseline": Step("baseline"),
    "generate": Step("generate"),
    "preflight": Step("preflight", {"load_in_4bit": False}),
    "preflight at 4 bits": Step("preflight", {"load_in_4bit": True}),
    "train": Step("train", {"load_in_4bit": False}),
    "train at 4 bits": Step("train", {"load_in_4bit": True}),
    "evaluate": Step("evaluate"),
    "merge": Step("merge"),
    "quantize": Step("quantize"),
    "deploy merged": Step("deploy", {"arm": "merged"}),
    "deploy W8A8": Step("deploy", serves="W8A8"),
    "deploy W4A16": Step("deploy", serves="W4A16"),
}


@dataclass(frozen=True, slots=True)
class Task:
    """One kind of work at one precision, at the settings that tunesmith would choose by itself."""

    task: Work
    precision: str
    plan: Plan
    settings: str = ""
    """What of its settings the memory depends on, in words."""
    least_bytes: int = 0
    """What it would need with the thriftiest settings of its kind; 0: it has no others."""

    @property
    def fits(self) -> bool:
        return not self.plan.refusals

    @property
    def ram_bytes(self) -> int:
        return self.plan.estimate.peak_ram_bytes

    @property
    def vram_bytes(self) -> int:
        return self.plan.estimate.peak_vram_bytes

    @property
    def cards(self) -> int:
        """That it works on, each with so much VRAM."""
        return self.plan.estimate.cards

    @property
    def peak_bytes(self) -> int:
        """Of the memory that decides: VRAM where it is computed on a card."""
        return self.vram_bytes or self.ram_bytes


@dataclass(frozen=True, slots=True)
class Decided:
    """What a plan for a model does on a machine where nobody says more: the bits of each work, and its steps' plans."""

    trained: int
    measured: int
    deployed: int
    why: str
    """It deploys this arm."""
    plans: Mapping[str, Plan]
    """By work."""

    @property
    def lacks(self) -> dict[str, str]:
        """Work of the plan that does not fit → why not."""
        return {work: plan.refusals[0] for work, plan in self.plans.items() if plan.refusals}

    def __str__(self) -> str:
        bits = f"trains at {self.trained} bits, measures at {self.measured} and deploys at {self.deployed}"
        lacks = [(work, why, self.plans[work].fitting) for work, why in self.lacks.items()]
        lacking = "; ".join(lack_sentences(lacks))
        return f"a plan {bits}{f', and does not fit: {lacking}' if lacking else ''}"


@dataclass(frozen=True, slots=True)
class Fits:
    """A model against a machine."""

    model: str
    revision: str
    """The commit whose config was read; empty for a known family, a size, a folder."""
    parameters: int
    active_parameters: int
    tasks: tuple[Task, ...]
    machine: Machine
    decided: Decided
    approximate: bool = False
    """Whether the model only stands for the size that was named."""

    def of(self, work: str, *, precision: str = "") -> tuple[Task, ...]:
        """The tasks of a kind of work, at one precision where one is named."""
        return tuple(task for task in self.tasks if task.task == work and precision in ("", task.precision))


def facts_here(store: Store, *, vllm: str | None, card: Card | None = None, ram_gib: float = 0.0) -> Facts:
    """What plans may know of this machine; of one with other cards in it, all of their memory and of the RAM.

    With other RAM and no card it is one without any. The disk of another machine refuses nothing.
    """
    facts = planning_facts.gather(store, "", vllm=vllm, machine=machine_for_a_step(store.home))
    machine = replace(facts.machine, ram_total_bytes=int(ram_gib * GIB)) if ram_gib else facts.machine
    if card:
        return with_card(machine, card, home=store.home)
    if not ram_gib:
        return replace(facts, artifacts={})
    return replace(facts, artifacts={}, machine=_idle(machine), vllm=_ANY_VLLM, served=frozenset(), here=False)


def with_card(machine: Machine, card: Card | float, *, home: Path = Path()) -> Facts:
    """What plans would know of a machine with a card in it, several of them, or one with so many GiB free, and nothing
    else running.

    It is another machine, so that the disk of this one refuses nothing.
    """
    card = card if isinstance(card, Card) else Card(f"a card with {card:g} GiB free", card)
    free = round(card.free_gib * GIB)
    gpus = tuple(Gpu(n, card.name, whole_bytes(free), free, card.capability, "") for n in range(card.count))
    return Facts(home, _idle(machine, gpus=gpus), "", _ANY_VLLM, here=False, margin=UNMEASURED)


def _idle(machine: Machine, *, gpus: tuple[Gpu, ...] = ()) -> Machine:
    """One that is only asked about, with nothing running on it, no swap, and disk that refuses nothing."""
    free = usable_bytes(machine.ram_total_bytes)
    return replace(machine, ram_free_bytes=free, swap_free_bytes=0, disk_free_bytes=sys.maxsize, gpus=gpus)


def fits(model: NamedModel, facts: Facts, *, revision: str = "") -> Fits:
    """Every task for a model. Raises BadInput for a config without the sizes that decide."""
    parameters, shape = model.parameters, model.shape
    plans = plans_of(model, facts)
    measured = {
        bits: _plan(STEPS["baseline"], _with_artifacts(model, facts, measuring=bits)) for bits in (SIXTEEN, FOUR)
    }
    bits = SCHEME if plans["base"].request["measuring"] == FOUR else "bf16"
    tasks = (
        Task("base", bits, plans["base"], "and the copy of it that is measured" if bits == SCHEME else ""),
        Task("preflight", "bf16", plans["preflight"]),
        Task("preflight", "nf4", plans["preflight at 4 bits"]),
        _training("bf16", "LoRA (16 bits)", "train", model, facts, plans),
        _training("nf4", "QLoRA (4 bits)", "train at 4 bits", model, facts, plans),
        Task("measure", "bf16", measured[SIXTEEN]),
        Task("measure", SCHEME, measured[FOUR], "the base rounded to 4 bits, for measuring alone"),
        Task("merge", "bf16", plans["merge"]),
        Task("quantize", str(plans["quantize"].request["scheme"]), plans["quantize"]),
        Task("serve", "bf16", plans["deploy merged"]),
        *(Task("serve", scheme, plans[f"deploy {scheme}"]) for scheme in ("W8A8", "W4A16")),
    )
    way = decided(model, facts)
    return Fits(model.name, revision, parameters, shape.active_parameters, tasks, facts.machine, way, model.approximate)


def decided(model: NamedModel, facts: Facts) -> Decided:
    """What a plan for a model does. Raises BadInput for a config without the sizes that decide."""
    known = _with_artifacts(model, facts)
    arm, why = arm_for(model.config, known)
    plans = {"base": _plan(STEPS["base"], known), "measure": _plan(STEPS["baseline"], known)}
    plans |= {work: _plan(Step(work), known) for work in ("preflight", "train")}
    measured = 4 if plans["base"].request["measuring"] == FOUR else 16
    deployed, served = measured, Step("deploy", {"arm": arm})
    if arm == "quantized":
        plans |= {work: _plan(Step(work), known) for work in ("merge", "quantize")}
        scheme = SCHEMES[str(plans["quantize"].request["scheme"])]
        deployed, served = scheme.bits, Step("deploy", serves=scheme.name)
    plans["serve"] = _plan(served, known)
    trained = 4 if plans["train"].request["load_in_4bit"] else 16
    return Decided(trained, measured, deployed, why, plans)


def fits_of_listed(facts: Facts) -> tuple[tuple[KnownBase, Fits], ...]:
    """The models that are proposed where nobody names one, the smallest first."""
    listed = known_bases(on_card=facts.trains_on_gpu and facts.serves_on_gpu)
    return tuple((base, fits(NamedModel(base.title, base.config), facts)) for base in listed)


def _training(precision: str, kind: str, step: str, model: NamedModel, facts: Facts, plans: Mapping[str, Plan]) -> Task:
    """A training at the settings that it would choose for the memory that is free, beside the thriftiest."""
    plan = plans[step]
    request = TrainRequest.model_validate(plan.request)
    rows = request.micro_batch or request.batch_size // request.cards
    activations = ", all activations kept" if request.activation_checkpointing == "off" else ""
    settings = f"{kind}, {rows} row{'s' if rows > 1 else ''} of up to {2 * ROW_TOKENS} tokens at once{activations}"
    settings += f", on each of {request.cards} cards" if request.cards > 1 else ""
    thrifty = plan_of(step, model, facts, micro_batch=1, activation_checkpointing="on").estimate
    return Task("train", precision, plan, settings, thrifty.peak_vram_bytes or thrifty.peak_ram_bytes)


def lacking(plan: Plan, context: object, facts: Facts) -> tuple[str, ...]:
    """What a plan that gets a base adds: the work that this model is too large for here; nothing for another stage."""
    if not isinstance(context, BaseContext) or not context.config or plan.request["role"] != "base":
        return ()
    try:
        lacks = decided(NamedModel("this model", context.config), replace(facts, artifacts={})).lacks
    except BadInput as error:  # a config that leaves its sizes out
        return (f"whether it fits shows only when it is here: {error}",)
    lines = (f"{work} {why}" for work, why in lacks.items() if work not in PREPARING)
    return tuple(f"it does not fit here as a base to be fine-tuned: {line}" for line in lines)


def plans_of(model: NamedModel, facts: Facts) -> dict[str, Plan]:
    """The plan of every step of the way for a model, by what the step does."""
    known = _with_artifacts(model, facts)
    return {step: _plan(usual, known) for step, usual in STEPS.items()}


def plan_of(step: str, model: NamedModel, facts: Facts, **fields: object) -> Plan:
    """The plan of one of STEPS with other fields than usual."""
    return _plan(STEPS[step], _with_artifacts(model, facts), **fields)


def quantized_bytes(model: NamedModel, scheme: Literal["W8A8", "W4A16"]) -> int:
    """Of the files of a model once it is quantized."""
    artifact = quantize.expected_artifact(
        quantize.QuantizeRequest(scheme=scheme), _with_artifacts(model, Facts(Path(), _NOWHERE, "")).artifacts
    )
    return artifact.bytes if artifact else 0


def _with_artifacts(model: NamedModel, facts: Facts, *, measuring: Asked = "auto") -> Facts:
    """What the steps before should have left, for each step."""
    config = dict(model.config)
    base = expected("base", 2 * model.parameters, name=model.name, parameters=model.parameters, config=config)
    base.meta[MEASURED_AT] = measuring
    artifacts = {
        "base": base,
        "suite": baseline.expected_artifact(baseline.BaselineRequest(), {}),
        "dataset": expected("dataset", train_rows=ROWS, tokens_per_row=ROW_TOKENS),
        "adapter": expected("adapter"),
        "merged": replace(base, kind="merged"),
    }
    return replace(facts, vllm=facts.vllm or _ANY_VLLM, artifacts=artifacts)


def _plan(usual: Step, facts: Facts, **fields: object) -> Plan:
    if usual.serves:
        artifact = quantize.expected_artifact(
            quantize.QuantizeRequest.model_validate({"scheme": usual.serves}), facts.artifacts
        )
        assert artifact is not None, "its merged model is there"
        facts = replace(facts, artifacts={**facts.artifacts, artifact.kind: artifact})
    declared = BY_NAME[usual.stage].load()
    request = declared.request.model_validate({**usual.fields, **fields})
    return declared.plan(request, facts, declared.usual_context(facts))


def times_are_for() -> str:
    """What the times of all tasks are for, in words."""
    return f"{ROWS} rows of {ROW_TOKENS} tokens, and {len(usual_suite().cases)} cases to be measured"


def to_json(report: Fits, card: Card | None = None) -> dict[str, object]:
    """The documented shape, on this machine or on another card."""
    tasks = [
        {
            **picked(task, "task", "precision", "fits", "vram_bytes", "cards"),
            "least_bytes": task.least_bytes or task.peak_bytes,
            **picked(task, "settings", "ram_bytes"),
            **picked(task.plan.estimate, "disk_bytes", "seconds", "basis"),
            "try": list(map(str, task.plan.fitting)),
            "refusals": list(task.plan.refusals),
        }
        for task in report.tasks
    ]
    return {
        **picked(report, "model", "revision", "parameters", "active_parameters", "approximate"),
        "card": card.name if card else "",
        "card_note": card.note if card else "",
        "room": {"ram_bytes": report.machine.memory_room_bytes, "vram_bytes": report.machine.vram_room_on(1)},
        "tasks": tasks,
        "decided": {
            **picked(report.decided, "trained", "measured", "deployed", "lacks", "why"),
            "fits": not report.decided.lacks,
        },
    }
