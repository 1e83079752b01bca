"""This computer, measured now: cards, memory, disk, cores, and which programs do the work."""

from __future__ import annotations

from tunesmith.agent.driver.facts.answer import Answer, Question
from tunesmith.tools.core.format import size
from tunesmith.tools.core.machine import Machine
from tunesmith.tools.machine.gpus import left_out_gpus, serves_on_cpu
from tunesmith.tools.machine.measure import measure_machine


def answer(question: Question) -> Answer:
    """What was asked of the machine first, the rest of it below."""
    home = question.store.home
    machine = measure_machine(home)
    facts = {
        "gpu": _gpu(machine),
        "ram": _ram(machine),
        "disk": f"Disk: {size(machine.disk_free_bytes)} free where tunesmith keeps its models and runs ({home}).",
        "cpu": f"Processor: {machine.cpu}, {machine.cores} cores.",
    }
    aspect = {"peak": "ram", "size": "disk", "": "gpu"}.get(question.query.aspect, question.query.aspect)
    first = [facts[aspect]] if aspect in facts else []
    lines = [*first, *(line for name, line in facts.items() if name != aspect)]
    vllm = question.ws.vllm
    where = "the processor" if not machine.gpus or serves_on_cpu(vllm) else "the graphics card"
    lines.append(f"vLLM serves on {where} ({vllm})." if vllm else "No vLLM was found; `tunesmith setup` installs it.")
    return Answer(tuple([*lines, *left_out_gpus()][:6]))


def _gpu(machine: Machine) -> str:
    if not machine.gpus:
        return "No GPU was found here: there is no VRAM, and everything is computed on the processor."
    cards = [f"{g.name}: {size(g.free_bytes)} of {size(g.total_bytes)} VRAM free" for g in machine.gpus]
    return f"{len(machine.gpus)} GPU{'s' if len(machine.gpus) > 1 else ''}: {'; '.join(cards)}."


def _ram(machine: Machine) -> str:
    swap = f", {size(machine.swap_free_bytes)} of swap free" if machine.swap_free_bytes else ", no swap"
    return f"RAM: {size(machine.ram_free_bytes)} free of {size(machine.ram_total_bytes)}{swap}."
