"""The stages, in the order of the arc. One declaration, four faces.

From this list come the agent's typed tools, the slash commands, the `tunesmith STAGE` subcommands and the table in
the README. To add a stage: one entry here, `tools/NAME.py` (what it asks, costs and returns) and
`tools/work/NAME.py` (what it does). This module stays light: `--help` reads it.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tunesmith.tools.stage import Stage


@dataclass(frozen=True, slots=True)
class Entry:
    """A stage by name; its declaration is imported only when asked for."""

    name: str
    summary: str
    needs: tuple[str, ...] = ()
    """Kinds of artifact that the run must hold before."""
    makes: str = ""
    """Kind of artifact it leaves."""
    expensive: bool = True
    serves: bool = False
    """Whether its work needs the vllm program."""
    asks: tuple[str, ...] = ()
    """Fields of its request that the conversation may set; the others keep their defaults there."""
    words: str = ""
    """A regular expression for how people name it; what they name is put before the driver."""

    def load(self) -> Stage[Any]:
        """The stage's declaration, from the module of its name."""
        stage: Stage[Any] = import_module(f"tunesmith.tools.{self.name}").STAGE
        return stage


STAGES: tuple[Entry, ...] = (
    Entry(
        "inspect",
        "measure GPU, VRAM, RAM, swap and disk, and say what fits",
        expensive=False,
        words=r"gpu|vram|ram\b|memory|disk|hardware|machine|inspect|\bfits?\b",
    ),
    Entry(
        "base",
        "fetch or copy a base model and keep it pristine, with a hash manifest",
        makes="base",
        asks=("model",),
        words=r"download|fetch|base model|\bget\b.*model|load.*model",
    ),
    Entry(
        "baseline",
        "run the suites on the untouched base and keep every output",
        ("base",),
        "suite",
        serves=True,
        asks=("cases_per_block",),
        words=r"base ?line|before (we )?train",
    ),
    Entry(
        "generate",
        "write training rows for the behaviour with a served model",
        ("base",),
        "rows",
        serves=True,
        asks=("rows", "writer"),
        words=r"generat|synthe|training (data|rows|examples)|make.*(rows|data|examples)|write.*(rows|examples)",
    ),
    Entry(
        "critique",
        "validate, deduplicate and check the rows against every suite",
        ("rows", "suite"),
        "dataset",
        words=r"critique|duplicat|\bclean|filter|leak|judge.*rows|check.*(rows|data)",
    ),
    Entry(
        "preflight",
        "smoke-test every link of the chain on a few rows",
        ("base", "dataset"),
        "preflight",
        serves=True,
        words=r"pre-?flight|smoke",
    ),
    Entry(
        "train",
        "train a low-rank adapter (LoRA, or QLoRA at 4 bits)",
        ("base", "dataset"),
        "adapter",
        asks=("lora_rank", "learning_rate", "epochs"),
        words=r"\btrain|lora|epoch",
    ),
    Entry(
        "evaluate",
        "run the suites on an arm and compare it case by case",
        ("base", "suite"),
        "results",
        serves=True,
        asks=("arm",),
        words=r"evaluat|\btest|measure the|benchmark|re-?run the suites?",
    ),
    Entry(
        "merge",
        "merge the adapter into the full-precision base, shard by shard",
        ("base", "adapter"),
        "merged",
        words=r"\bmerg",
    ),
    Entry(
        "quantize",
        "quantize the merged model; lm_head and routers keep full precision",
        ("merged", "dataset"),
        "quantized",
        asks=("scheme",),
        words=r"quanti[sz]|\bcompress|4.?bit|8.?bit|w4a16|w8a8",
    ),
    Entry(
        "deploy",
        "serve the chosen model on a local port, or roll back to the one before",
        ("base",),
        "deployment",
        serves=True,
        asks=("arm", "rollback"),
        words=r"deploy|\bserve (it|the|this|that)|put.*(live|online)|roll.?back|ship it|go live",
    ),
)

BY_NAME = {entry.name: entry for entry in STAGES}
