"""The conversation's own model as a guest on the machine: what its server holds, and when it has to leave.

It gives its memory back before a step that would not fit beside it, whoever starts that step, and it does not come
back while such a step runs. Memory that it holds is therefore counted as free when a step is priced.
"""

from __future__ import annotations

from pathlib import Path

from tunesmith.memory.errors import StepFailed
from tunesmith.memory.json_values import as_int, as_object
from tunesmith.memory.records import RUNNING, Step
from tunesmith.memory.store import Store
from tunesmith.tools.core.estimate import held_notes, held_now
from tunesmith.tools.core.machine import Machine
from tunesmith.tools.core.stage import Estimate, Plan
from tunesmith.tools.pipeline import catalog, launcher
from tunesmith.tools.serving import servers
from tunesmith.tools.serving.eviction import as_found, machine_beside_the_driver, machine_for_a_step

EVICTED = "the driver gives its memory back for this step, and returns with the words after it"


def in_the_way(home: Path, price: Estimate) -> list[servers.Server]:
    """The driver's servers, where a step of this price does not fit beside them; else none."""
    running = servers.list_servers(home, role=servers.DRIVER)
    if not running or _fits(machine_beside_the_driver(home), price.peak_ram_bytes, price.peak_vram_bytes, price.cards):
        return []
    return running


def evict_driver(home: Path, price: Estimate) -> bool:
    """Stop the driver's servers where a step of this price does not fit beside them; whether any had to go."""
    running = in_the_way(home, price)
    for server in running:
        servers.stop(server)
    return bool(running)


def notes_of_held(home: Path, plan: Plan, machine: Machine) -> tuple[str, ...]:
    """What a price says of memory that it counts on and that other programs hold now, here or where it is carried out.

    `machine` is as it is for a step.
    """
    return held_notes(plan.estimate, machine if plan.on else _found_by(plan, home, machine))


def need_memory_now(home: Path, plan: Plan) -> None:
    """Raises StepFailed where other programs hold memory at this moment that a step of this price needs."""
    if plan.on:
        return
    if held := held_now(plan.estimate, _found_by(plan, home, machine_for_a_step(home))):
        raise StepFailed(f"{plan.stage} {'; '.join(held)}, then `tunesmith run --resume`")


def _found_by(plan: Plan, home: Path, machine: Machine) -> Machine:
    return as_found(home, machine, replaces_deployed=catalog.ENTRIES[plan.stage].load().replaces_deployed)


def blocked_by(machine: Machine, store: Store, *, ram_bytes: int, vram_bytes: int) -> Step | None:
    """The running step beside which a driver of this size would not fit, by what that step may still come to need."""
    for step in (step for step in store.steps(status=RUNNING) if not step.on):
        price = as_object(step.plan.get("estimate", {}))
        more_ram = max(as_int(price.get("peak_ram_bytes", 0)) - (step.peak_rss_bytes or 0), 0)
        more_vram = max(as_int(price.get("peak_vram_bytes", 0)) - (step.peak_vram_bytes or 0), 0)
        if launcher.is_alive(store, step) and not _fits(machine, ram_bytes + more_ram, vram_bytes + more_vram):
            return step
    return None


def _fits(machine: Machine, ram_bytes: int, vram_bytes: int, cards: int = 1) -> bool:
    """Whether this much is free, swap left out: a step that swaps takes longer than the driver takes to come back."""
    return ram_bytes <= machine.ram_free_bytes and (not machine.gpus or vram_bytes <= machine.vram_free_on(cards))
