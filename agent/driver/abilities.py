"""What is known of a driver, and which one is proposed for this machine."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from tunesmith.agent.commands.settings import DriverSettings
from tunesmith.agent.driver.history import Window
from tunesmith.memory.files import atomic_write
from tunesmith.memory.store import Store
from tunesmith.tools.core.format import size
from tunesmith.tools.core.machine import Gpu, chosen_gpu, usable_bytes
from tunesmith.tools.core.stage import GIB, PlanQuestion
from tunesmith.tools.machine.cards import Card
from tunesmith.tools.models.bundled import BUNDLED
from tunesmith.tools.models.known_drivers import KnownDriver, known_drivers
from tunesmith.tools.models.model_names import NamedModel
from tunesmith.tools.pipeline.fits import facts_here, fits, with_card
from tunesmith.tools.pipeline.workspace import Workspace

ROUTING_TOKENS = 6000
"""Context that the fixed page of examples, some words and an answer need."""
_FILE = "driver-probe.json"


def keep(home: Path, model: str, chosen: DriverSettings, abilities: Mapping[str, object]) -> None:
    """Write down what a driver of these settings can do."""
    atomic_write(home / _FILE, json.dumps({model: {**abilities, "of": _named(chosen)}}, indent=1))


def is_routed(home: Path, chosen: DriverSettings) -> bool:
    """Whether a schema-bound request chooses each step: as set, else by what the driver's examination found."""
    if chosen.routing != "auto":
        return chosen.routing
    return not any(one.get("level") == "native" and one.get("of") == _named(chosen) for one in _records(home).values())


def _named(chosen: DriverSettings) -> str:
    return f"{chosen.endpoint} {chosen.name}".strip() if chosen.endpoint else chosen.model


def window_for(home: Path, chosen: DriverSettings) -> Window:
    """How much the driver of these settings can be sent, before it is there to be asked."""
    record = next((one for one in _records(home).values() if one.get("of") == _named(chosen)), {})
    return _window(record, Window() if chosen.endpoint else Window(chosen.context_tokens))


def window_of(home: Path, model: str, before: Window) -> Window:
    """How much a driver can be sent, by what the probe found; what is known of it already where nothing was."""
    return _window(_records(home).get(model, {}), before)


def _window(record: Mapping[str, object], before: Window) -> Window:
    context = record.get("context_tokens")
    known = context if isinstance(context, int) else before.context_tokens
    return replace(before, context_tokens=known, thinks=record.get("thinks") is True or before.thinks)


def can_be_routed(home: Path, model: str) -> bool:
    """Whether the tool may be chosen by a schema-bound request: unless the probe saw that a schema does not hold it."""
    abilities = _records(home).get(model, {})
    context = abilities.get("context_tokens")
    short = isinstance(context, int) and context < ROUTING_TOKENS
    return abilities.get("json_schema", True) is True and not short


def _records(home: Path) -> dict[str, dict[str, object]]:
    try:
        by_model: dict[str, dict[str, object]] = json.loads((home / _FILE).read_text())
    except (OSError, ValueError):  # never tried, or kept by another version: tried anew
        return {}
    return by_model


_USUAL_WORK = "bundled-1.5b"


@dataclass(frozen=True, slots=True)
class Proposed:
    """A driver that fits, and the sum."""

    driver: KnownDriver
    card: Gpu
    work: str
    work_bytes: int
    """Of the card, that a training of the run's base takes."""

    def __str__(self) -> str:
        one = self.driver
        return (
            f"{one.title} ({one.license}, {size(one.weight_bytes)} to fetch; {one.why}) is the strongest driver that "
            f"fits the {self.card.name} beside the work: {size(one.vram_bytes)}, and {size(self.work_bytes)} for "
            f"training {self.work}, of {size(self.card.total_bytes)}"
        )

    @property
    def question(self) -> PlanQuestion:
        """What is asked before the hub is: its download is priced and asked about once more, by its own step."""
        return PlanQuestion(text=f"{self}. Look {self.driver.model} up on the hub?", yes={"model": self.driver.model})


def proposed(ws: Workspace) -> Proposed | None:
    """The strongest listed driver that fits beside the training of the newest run's base; None without such a card."""
    here = facts_here(ws.store, vllm=ws.vllm)
    card = chosen_gpu(here.machine.gpus)
    if card is None or not here.serves_on_gpu:
        return None
    work = _work(ws.store)
    for driver in reversed(known_drivers()):
        left = Card(card.name, (usable_bytes(card.total_bytes) - driver.vram_bytes) / GIB)
        tasks = fits(work, with_card(here.machine, left)).of("train") if left.free_gib > 0 else []
        if task := next((task for task in tasks if task.fits and task.vram_bytes), None):
            return Proposed(driver, card, work.name, task.vram_bytes)
    return None


def _work(store: Store) -> NamedModel:
    """The base that is trained here: the newest run's, else the packaged one of 1.5B."""
    run = store.newest_run()
    base = store.artifacts(run.id, "base") if run else []
    if base and base[-1].meta.get("config"):
        return NamedModel(str(base[-1].meta.get("name", "the base")), base[-1].config)
    usual = BUNDLED[_USUAL_WORK]
    return NamedModel(usual.title, usual.config)
