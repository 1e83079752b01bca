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

    def load(self) -> Stage[Any]:
        """The stage's declaration, from the module of its name."""
        stage: Stage[Any] = import_module(f"tunesmith.tools.{self.name}").STAGE
        return stage


STAGES: tuple[Entry, ...] = (
    Entry("inspect", "measure GPU, VRAM, RAM, swap and disk, and say what fits", expensive=False),
    Entry("base", "fetch or copy a base model and keep it pristine, with a hash manifest", makes="base"),
    Entry("baseline", "run the suites on the untouched base and keep every output", ("base",), "suite"),
    Entry("generate", "write training rows for the behaviour with a served model", ("base",), "rows"),
    Entry("critique", "validate, deduplicate and check the rows against every suite", ("rows", "suite"), "dataset"),
    Entry("preflight", "smoke-test every link of the chain on a few rows", ("base", "dataset"), "preflight"),
    Entry("train", "train a low-rank adapter (LoRA, or QLoRA at 4 bits)", ("base", "dataset"), "adapter"),
    Entry("evaluate", "run the suites on an arm and compare it case by case", ("base", "suite"), "results"),
    Entry("merge", "merge the adapter into the full-precision base, shard by shard", ("base", "adapter"), "merged"),
    Entry(
        "quantize",
        "quantize the merged model; lm_head and routers keep full precision",
        ("merged", "dataset"),
        "quantized",
    ),
    Entry("deploy", "serve the chosen model on a local port, or roll back to the one before", ("base",), "deployment"),
)

BY_NAME = {entry.name: entry for entry in STAGES}
