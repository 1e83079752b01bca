"""What the plans say of published models on usual cards, as two tables: the golden plans, and the README's.

`make tables` writes both anew, and the README's table of families; what changed is then seen in the commit.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tests.fixtures import families
from tunesmith.tools.core.stage import GIB, Machine
from tunesmith.tools.models.measuring import QUANTIZED_BASE
from tunesmith.tools.models.model_names import NamedModel, named_model
from tunesmith.tools.pipeline.fits import fits, plans_of, with_card

ROOT = Path(__file__).resolve().parents[2]
GOLDEN, README = Path(__file__).with_name("plans.txt"), ROOT / "README.md"
BEGIN, END = "<!-- what fits: made by `make tables` -->\n", "<!-- end of what fits -->\n"
FAMILIES_BEGIN, FAMILIES_END = "<!-- families: made by `make tables` -->\n", "<!-- end of families -->\n"
GOLDEN_MODELS = ("llama-3.2-3b", "qwen2.5-7b", "llama-3.1-8b", "qwen2.5-14b", "qwen2.5-32b", "qwen3-30b-a3b")
GOLDEN_CARDS = (12, 24, 48, 80)
README_MODELS = (
    "llama-3.2-1b", "qwen2.5-1.5b", "gemma-2-2b", "llama-3.2-3b", "qwen3-4b", "mistral-7b", "olmoe-1b-7b", "qwen3-8b",
    "gemma-2-9b", "qwen2.5-14b", "phi-4", "mistral-small-24b", "qwen3-30b-a3b", "qwen2.5-32b", "llama-3.3-70b",
)  # fmt: skip
README_CARDS = (8, 12, 16, 24, 48, 80)
RAM_GIB = 32


def machine() -> Machine:
    """Of the tables: 32 GiB of RAM, and disk enough."""
    return Machine("a processor", 8, RAM_GIB * GIB, RAM_GIB * GIB, 0, 10_000 * GIB)


def model_of(name: str) -> NamedModel:
    model = named_model(name)
    assert model is not None, name
    return model


def golden() -> str:
    """Model, card, step: the verdict, the peaks in GiB of VRAM and RAM, and what would fit where that does not."""
    return "".join(f"{line}\n" for line in _golden_lines())


def _golden_lines() -> Iterator[str]:
    for name in GOLDEN_MODELS:
        for card in GOLDEN_CARDS:
            yield f"{model_of(name).name} on a card of {card} GB, {RAM_GIB} GiB of RAM"
            for step, plan in plans_of(model_of(name), with_card(machine(), card)).items():
                price = plan.estimate
                peaks = f"{price.peak_vram_bytes / GIB:6.1f} {price.peak_ram_bytes / GIB:6.1f}"
                ways = ", or ".join(map(str, plan.fitting))
                measured = "measured at 4 bits" if QUANTIZED_BASE in plan.inputs else ""
                yield f"  {step:19} {'no ' if plan.refusals else 'yes'} {peaks}  {ways or measured}".rstrip()


def readme_table() -> str:
    """Models down, cards across: how it is trained, measured and served there, at the most bits that fit."""
    head = ["model", *(f"{card} GB" for card in README_CARDS)]
    rows = [head, ["---"] * len(head)]
    for name in README_MODELS:
        model = model_of(name)
        rows.append([f"{model.name}", *(_cell(model, card) for card in README_CARDS)])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _cell(model: NamedModel, card_gib: int) -> str:
    found = fits(model, with_card(machine(), card_gib))

    def best(work: str, bits: dict[str, str]) -> str:
        fitting = [bits[task.precision] for task in found.of(work) if task.fits]
        return fitting[0] if fitting else "–"

    trained = best("train", {"bf16": "16", "nf4": "4"})
    measured = best("measure", {"bf16": "16", "W4A16": "4"})
    served = best("serve", {"bf16": "16", "W8A8": "8", "W4A16": "4"})
    cell = f"{trained} · {measured} · {served}"
    return f"**{cell}**" if "–" not in cell else cell


def with_table(text: str) -> str:
    """The README's text with its tables as they are now: what fits, and what the lab does with each family."""
    for begin, end, table in ((BEGIN, END, readme_table()), (FAMILIES_BEGIN, FAMILIES_END, families.table())):
        before, rest = text.split(begin)
        _, after = rest.split(end)
        text = f"{before}{begin}{table}{end}{after}"
    return text


if __name__ == "__main__":
    GOLDEN.write_text(golden())
    README.write_text(with_table(README.read_text()))
