"""What the plans say of published models on usual cards, as tables: the golden plans, the README's, docs/models.md's.

`make tables` writes them anew, and the table of families; what changed is then seen in the commit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from tests.fixtures import families
from tunesmith.tools.core.machine import Machine
from tunesmith.tools.core.stage import GIB, Facts, Plan
from tunesmith.tools.machine.cards import card_of_size
from tunesmith.tools.models.measuring import QUANTIZED_BASE
from tunesmith.tools.models.model_names import NamedModel, named_model
from tunesmith.tools.pipeline.fits import plans_of, with_card

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = Path(__file__).with_name("plans.txt")
README, MODELS_PAGE = ROOT / "README.md", ROOT / "docs" / "models.md"
BEGIN, END = "<!-- what fits: made by `make tables` -->\n", "<!-- end of what fits -->\n"
FAMILIES_BEGIN, FAMILIES_END = "<!-- families: made by `make tables` -->\n", "<!-- end of families -->\n"
GOLDEN_MODELS = ("llama-3.2-3b", "qwen2.5-7b", "llama-3.1-8b", "qwen2.5-14b", "qwen2.5-32b", "qwen3-30b-a3b")
GOLDEN_CARDS = (12, 24, 48, 80)
README_MODELS = ("llama-3.2-1b", "qwen3-4b", "qwen3-8b", "qwen2.5-14b", "qwen3-30b-a3b", "llama-3.3-70b")
MODELS = (
    "llama-3.2-1b", "qwen2.5-1.5b", "gemma-2-2b", "llama-3.2-3b", "qwen3-4b", "mistral-7b", "olmoe-1b-7b", "qwen3-8b",
    "gemma-2-9b", "qwen2.5-14b", "phi-4", "mistral-small-24b", "qwen3-30b-a3b", "qwen2.5-32b", "llama-3.3-70b",
)  # fmt: skip
CARDS = (8, 12, 16, 24, 48, 80)
RAM_GIB = 32


def machine() -> Machine:
    """Of the tables: 32 GiB of RAM, and disk enough."""
    return Machine("a processor", 8, RAM_GIB * GIB, RAM_GIB * GIB, 0, 10_000 * GIB)


def model_of(name: str) -> NamedModel:
    model = named_model(name)
    assert model is not None, name
    return model


def on_card(card_gb: int) -> Facts:
    """That machine with a card of so many GB, of which a desktop and the driver have their part."""
    return with_card(machine(), card_of_size(card_gb))


@cache
def plans(name: str, card_gb: int) -> dict[str, Plan]:
    """Of every step for a model on such a machine."""
    return plans_of(model_of(name), on_card(card_gb))


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
    """Models down, cards across: how it is trained, measured and served there, at the most bits that fit."""
    head = ["model", *(f"{card} GB" for card in CARDS)]
    rows = [head, ["---"] * len(head)]
    for name in models:
        rows.append([model_of(name).name, *(str(ways(name, card)) for card in CARDS)])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


class Ways(NamedTuple):
    """The most bits at which a model is trained, measured and served on a card; – where it is not."""

    trained: str
    measured: str
    served: str

    def __str__(self) -> str:
        cell = " · ".join(self)
        return f"**{cell}**" if "–" not in cell else cell

    @property
    def steps(self) -> tuple[str, ...]:
        """All steps from the base to the served model, so: what a bold cell says fits."""
        train = {"16": "train", "4": "train at 4 bits"}[self.trained]
        served = {"16": "deploy merged", "8": "deploy W8A8", "4": "deploy W4A16"}[self.served]
        preflight = train.replace("train", "preflight")
        return ("base", "baseline", "generate", preflight, train, "evaluate", "merge", "quantize", served)


def ways(name: str, card_gb: int) -> Ways:
    """What the table says of a model on a card, by the plans of its steps as they would come."""
    known = plans(name, card_gb)

    def best(**steps: str) -> str:
        return next((bits.strip("_") for bits, step in steps.items() if not known[step].refusals), "–")

    measured = "4" if QUANTIZED_BASE in known["baseline"].inputs else "16"
    return Ways(
        best(_16="train", _4="train at 4 bits"),
        "–" if known["baseline"].refusals or known["base"].refusals else measured,
        best(_16="deploy merged", _8="deploy W8A8", _4="deploy W4A16"),
    )


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
