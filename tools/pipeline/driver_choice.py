"""Which listed driver is proposed for this machine: the strongest that fits its card beside the training."""

from __future__ import annotations

from dataclasses import dataclass

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
