"""This computer, measured now: cards, memory, disk, cores, and which programs do the work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tunesmith.agent.queries.answer import Answer, Context
from tunesmith.agent.queries.base import Query
from tunesmith.tools.core.format import count, size
from tunesmith.tools.core.machine import Machine, cores_text
from tunesmith.tools.machine.gpus import left_out_gpus, serves_on_cpu
from tunesmith.tools.machine.measure import measure_machine


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
