"""What the plans say of published models on usual cards, as tables: the golden plans, the README's, docs/models.md's.

`make tables` writes them anew, and the table of families; what changed is then seen in the commit.
"""

from __future__ import annotations

import atexit
import shutil
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import NamedTuple

from tests.fixtures import families
from tests.fixtures.descriptions import COOKING
from tunesmith.memory.store import Store
from tunesmith.tools.core.machine import Machine
from tunesmith.tools.core.stage import GIB, Facts, Plan
from tunesmith.tools.data.behaviour import write_behaviour
from tunesmith.tools.machine.cards import card_of
from tunesmith.tools.models.measuring import QUANTIZED_BASE
from tunesmith.tools.models.model_names import NamedModel, hub_name, named_model
from tunesmith.tools.models.schemes import SCHEMES
from tunesmith.tools.pipeline.base_choice import plan_here
from tunesmith.tools.pipeline.fits import plans_of, with_card
from tunesmith.tools.pipeline.forecast import Forecast, looked_ahead
from tunesmith.tools.pipeline.plan_file import PipelinePlan
from tunesmith.tools.pipeline.workspace import Workspace

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = Path(__file__).with_name("plans.txt")
README, MODELS_PAGE = ROOT / "README.md", ROOT / "docs" / "models.md"
BEGIN, END = "<!-- what fits: made by `make tables` -->\n", "<!-- end of what fits -->\n"
FAMILIES_BEGIN, FAMILIES_END = "<!-- families: made by `make tables` -->\n", "<!-- end of families -->\n"
GOLDEN_MODELS = ("llama-3.2-3b", "qwen2.5-7b", "llama-3.1-8b", "qwen2.5-14b", "qwen2.5-32b", "qwen3-30b-a3b")
GOLDEN_CARDS = (12, 24, 48, 80)
README_MODELS = ("llama-3.2-1b", "qwen3-4b", "qwen3-8b", "qwen2.5-14b", "qwen3-30b-a3b")
MODELS = (
    "llama-3.2-1b", "qwen2.5-1.5b", "gemma-2-2b", "llama-3.2-3b", "qwen3-4b", "mistral-7b", "olmoe-1b-7b", "qwen3-8b",
    "gemma-2-9b", "qwen2.5-14b", "phi-4", "mistral-small-24b", "qwen3-30b-a3b", "qwen2.5-32b", "llama-3.3-70b",
)  # fmt: skip
CARDS = ("8", "12", "16", "24", "2x24", "48")
RAM_GIB = 32


def machine() -> Machine:
    """Of the tables: 32 GiB of RAM, and disk enough."""
    return Machine("a processor", 8, RAM_GIB * GIB, RAM_GIB * GIB, 0, 10_000 * GIB)


def model_of(name: str) -> NamedModel:
    model = named_model(name)
    assert model is not None, name
    return model


def on_card(card: str) -> Facts:
    """That machine with a card of so many GB, of which a desktop and the driver have their part; or with several."""
    return with_card(machine(), card_of(card))


@cache
def plans(name: str, card_gb: int) -> dict[str, Plan]:
    """Of every step for a model on such a machine."""
    return plans_of(model_of(name), on_card(str(card_gb)))


def golden() -> str:
    """Model, card, step: the verdict, the peaks in GiB of VRAM and RAM, and what would fit where that does not."""
    return "".join(f"{line}\n" for line in _golden_lines())


def _golden_lines() -> Iterator[str]:
    for name in GOLDEN_MODELS:
        for card in GOLDEN_CARDS:
            yield f"{model_of(name).name} on a card of {card} GB, {RAM_GIB} GiB of RAM"
            for step, plan in plans(name, card).items():
                price = plan.estimate
                peaks = f"{price.peak_vram_bytes / GIB:6.1f} {price.peak_ram_bytes / GIB:6.1f}"
                ways = ", or ".join(map(str, plan.fitting))
                measured = "measured at 4 bits" if QUANTIZED_BASE in plan.inputs else ""
                yield f"  {step:19} {'no ' if plan.refusals else 'yes'} {peaks}  {ways or measured}".rstrip()


def fits_table(models: Sequence[str]) -> str:
    """Models down, cards across: at how many bits a plan trains, measures and deploys it there."""
    head = ["model", *(f"{card} GB".replace("x", " × ") for card in CARDS)]
    rows = [head, ["---"] * len(head)]
    for name in models:
        rows.append([model_of(name).name, *(str(cell(name, card)) for card in CARDS)])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


class Cell(NamedTuple):
    """At how many bits a plan trains, measures and deploys a model on a card; – where a step of that does not fit."""

    trained: str
    measured: str
    deployed: str

    def __str__(self) -> str:
        cell = " · ".join(self)
        return f"**{cell}**" if "–" not in cell else cell


_WORK = {
    "base": "measured", "generate": "measured", "critique": "measured", "baseline": "measured", "preflight": "trained",
    "train": "trained", "merge": "deployed", "quantize": "deployed", "deploy": "deployed",
}  # fmt: skip


@cache
def workspace() -> tuple[Workspace, Path]:
    """A home with nothing in it, and the folder of a behaviour."""
    home = Path(mkdtemp(prefix="tables-"))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    return Workspace(Store(home / "home"), "vllm", lambda event, **data: None), write_behaviour(COOKING, home)


@cache
def priced(name: str, card: str) -> tuple[PipelinePlan, tuple[Forecast, ...], str]:
    """The plan that teaches a model a behaviour on such a machine, its prices, and why it cannot be carried out."""
    (ws, folder), facts, hub = workspace(), on_card(card), hub_name(name)
    plan = plan_here(ws, folder, "full", model=hub, writer=hub, facts=facts)
    prices, why_not = looked_ahead(ws, plan, facts)
    return plan, tuple(prices), why_not


def cell(name: str, card: str) -> Cell:
    """What the table says of a model on a card: the fields of its plan's steps, and what they lack."""
    _, prices, _ = priced(name, card)
    request = {price.stage: price.decided for price in reversed(prices)}  # of the bases the one that is taught
    lacking = {_WORK.get(price.stage) or _tested(price) for price in prices if price.lacks}
    measured = str(request["base"]["measuring"])
    quantized = SCHEMES[str(request["quantize"]["scheme"])].bits if "quantize" in request else measured
    trained = "4" if request["train"]["load_in_4bit"] else "16"
    bits = {"trained": trained, "measured": measured, "deployed": str(quantized)}
    return Cell(*("–" if work in lacking else value for work, value in bits.items()))


def _tested(price: Forecast) -> str:
    return "deployed" if price.decided.get("arm") == "quantized" else "measured"


def pages() -> dict[Path, str]:
    """The pages that hold tables, with these as they are now."""
    fits_on = {README: fits_table(README_MODELS), MODELS_PAGE: fits_table(MODELS)}
    text = {page: _with(page.read_text(), BEGIN, END, table) for page, table in fits_on.items()}
    text[MODELS_PAGE] = _with(text[MODELS_PAGE], FAMILIES_BEGIN, FAMILIES_END, families.table())
    return text


def _with(text: str, begin: str, end: str, table: str) -> str:
    before, rest = text.split(begin)
    _, after = rest.split(end)
    return f"{before}{begin}{table}{end}{after}"


if __name__ == "__main__":
    GOLDEN.write_text(golden())
    for page, text in pages().items():
        page.write_text(text)
