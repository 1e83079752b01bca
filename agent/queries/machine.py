"""This machine as a question, and what a work needs of it or of a card: the least memory that each is possible with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from tunesmith.agent.queries.answer import Answer, Context, Query
from tunesmith.tools.core.format import count, size
from tunesmith.tools.core.machine import Machine, cores_text
from tunesmith.tools.core.stage import GIB, Facts
from tunesmith.tools.machine.cards import card_of_size
from tunesmith.tools.machine.gpus import left_out_gpus, serves_on_cpu
from tunesmith.tools.machine.measure import measure_machine
from tunesmith.tools.models.fitting import ANOTHER_BASE
from tunesmith.tools.models.model_names import NamedModel
from tunesmith.tools.pipeline.fits import PREPARING, Task, fits, with_card


class MachineQuery(Query):
    """This computer, measured now: its cards, memory, disk and cores."""

    kind: Literal["machine"] = "machine"
    part: Literal["all", "gpu", "ram", "disk", "cpu"] = "all"
    """What is told first."""


@dataclass(frozen=True, slots=True)
class Here:
    """This machine, and where vLLM would serve on it."""

    machine: Machine
    vllm: str
    """Its program; empty: none."""
    serves_on: Literal["cpu", "gpu"]


def answer(query: MachineQuery, context: Context) -> Answer:
    """What was asked of the machine first, the rest of it below."""
    home, vllm = context.store.home, context.ws.vllm or ""
    machine = measure_machine(home)
    here = Here(machine, vllm, "cpu" if not machine.gpus or serves_on_cpu(vllm or None) else "gpu")
    parts = {
        "gpu": _gpu(machine),
        "ram": _ram(machine),
        "disk": f"Disk: {size(machine.disk_free_bytes)} free where tunesmith keeps its models and runs ({home}).",
        "cpu": f"Processor: {machine.cpu}, {cores_text(machine.cores, machine.cores_allowed)}.",
    }
    lines = [text for _, text in sorted(parts.items(), key=lambda part: part[0] != query.part)]
    where = "the processor" if here.serves_on == "cpu" else "the graphics card"
    lines.append(f"vLLM serves on {where} ({vllm})." if vllm else "No vLLM was found; `tunesmith setup` installs it.")
    return Answer(tuple([*lines, *left_out_gpus()][:6]), (here,))


def _gpu(machine: Machine) -> str:
    if not machine.gpus:
        return "No GPU was found here: there is no VRAM, and everything is computed on the processor."
    cards = [f"{g.name}: {size(g.free_bytes)} of {size(g.total_bytes)} VRAM free" for g in machine.gpus]
    return f"{count(len(machine.gpus), 'GPU')}: {'; '.join(cards)}."


def _ram(machine: Machine) -> str:
    swap = f", {size(machine.swap_free_bytes)} of swap free" if machine.swap_free_bytes else ", no swap"
    return f"RAM: {size(machine.ram_free_bytes)} free of {size(machine.ram_total_bytes)}{swap}."


CARDS_GIB = (8, 12, 16, 24, 32, 48, 80, 141, 192, 640)
_BITS = {"bf16": 16, "W8A8": 8, "W4A16": 4, "nf4": 4}
_TRAINING = {"bf16": "LoRA (16 bits)", "nf4": "QLoRA (4 bits)"}


@dataclass(frozen=True, slots=True)
class Need:
    """What one kind of work needs, and in which memory."""

    name: str
    work: str
    bits: int
    bytes: int
    memory: str
    """RAM or VRAM."""
    lacks: str = ""
    """What is lacking beside memory, in the words of the plan's refusal."""


def needs_of(model: NamedModel, facts: Facts) -> list[Need]:
    """What every kind of work needs of a model on a machine."""
    return [need for task in fits(model, facts).tasks if task.task not in PREPARING for need in _needs(task)]


def needs_of_a_card(model: NamedModel, facts: Facts) -> list[Need]:
    """The same by the smallest usual card on which each kind of work fits; what fits on none is left out."""
    found: dict[tuple[str, str], list[Need]] = {}
    for card_gib in CARDS_GIB:
        for task in fits(model, with_card(facts.machine, card_of_size(card_gib), home=facts.home)).tasks:
            needs = list(_needs(task)) if task.task not in PREPARING else []
            if needs and all(need.bytes <= card_gib * GIB for need in needs if need.memory == "VRAM"):
                found.setdefault((task.task, task.precision), needs)
    return [need for needs in found.values() for need in needs]


def machine_of(facts: Facts, ram_gib: float) -> Facts:
    """The same machine with so much RAM, all of it free, and no card."""
    bytes_ = int(ram_gib * GIB)
    return replace(facts, machine=replace(facts.machine, ram_total_bytes=bytes_, ram_free_bytes=bytes_, gpus=()))


def _needs(task: Task) -> Iterator[Need]:
    """The task's need as it is, or with settings that fit where only these do; of RAM and VRAM where it takes both."""
    price, memory = task.plan.estimate, "VRAM" if task.vram_bytes else "RAM"
    lacks = "; ".join(refusal for refusal in task.plan.refusals if " of disk, " in refusal)
    bits, name = _BITS[task.precision], _name(task)
    ways = [way for way in task.plan.fitting if not way.settings.startswith(ANOTHER_BASE)]
    if ways and task.task == "train":
        way = ways[0]
        if "load_in_4bit" in way.settings:  # that is the other task
            return
        yield Need(f"{_TRAINING[task.precision]} with {way.settings}", "train", bits, way.peak_bytes, memory, lacks)
        return
    for bytes_, kind in ((price.peak_vram_bytes, "VRAM"), (price.peak_ram_bytes, "RAM")):
        if bytes_:
            yield Need(name, task.task, bits, bytes_, kind, lacks)


def _name(task: Task) -> str:
    if task.task == "train":
        return task.settings
    verb = {"measure": "measuring", "serve": "serving", "merge": "merging", "quantize": "quantizing"}[task.task]
    return verb if task.task in ("merge", "quantize") else f"{verb} at {_BITS[task.precision]} bits"
