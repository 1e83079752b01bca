"""The stages, in the order of the pipeline. One declaration, four faces.

From this list come the agent's typed tools, the slash commands, the `tunesmith STAGE` subcommands and the table in
the README. To add a stage: one entry here, `ROOM/NAME.py` (what it asks, costs and returns) and `ROOM/NAME_job.py`
(what it does). This module stays light: `--help` reads it, so modules are named here and imported only when asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

from tunesmith.tools.core.settled import MODELS, TOKENIZERS, TORCH, UNUSED

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tunesmith.tools.core.job import Job
    from tunesmith.tools.core.stage import Request, Result, Stage


class Entry(NamedTuple):
    """A stage by name; its declaration is imported only when asked for. Not a dataclass: that loads `inspect`."""

    name: str
    declared_in: str
    """Module that holds its `STAGE`: request, plan and result. Light."""
    summary: str
    needs: tuple[str, ...] = ()
    """Kinds of artifact that the run must hold before."""
    makes: str = ""
    """Kind of artifact it leaves."""
    expensive: bool = True
    """Whether each of its steps waits for a yes; of a free stage some may, which `asks` tells."""
    serves: bool = False
    """Whether its work needs the vllm program."""
    loads: tuple[str, ...] = ()
    """Modules that its work loads whatever it is asked, and that take seconds."""
    without: tuple[str, ...] = ()
    """Packages that these would load too, and that its work never needs."""
    worked_in: str = ""
    """Module whose `run(job)` does the work, in a worker; may load torch and friends. Empty: `declared_in` with `_job`
    behind it."""

    def load(self) -> Stage[Request, object]:
        """The stage's declaration."""
        stage: Stage[Request, object] = import_module(self.declared_in).STAGE
        return stage

    def asks(self, fields: Mapping[str, object]) -> bool:
        """Whether a step with these fields of its request is carried out by a worker, after a yes."""
        return self.expensive or self.load().asks_hub(fields)

    def needed(self, fields: Mapping[str, object]) -> tuple[str, ...]:
        """Kinds of artifact that a step with these fields needs."""
        spared = {kind for name, kind in self.load().spares.items() if fields.get(name)}
        return tuple(kind for kind in self.needs if kind not in spared)

    @property
    def only_looks(self) -> bool:
        """Whether it needs, makes and costs nothing: asked for by itself it opens no run and leaves no step."""
        return not (self.expensive or self.needs or self.makes)

    def work(self) -> Callable[[Job[Request]], Result]:
        """The function that does its work; importing it may load torch and friends, so only workers ask for it."""
        run: Callable[[Job[Request]], Result] = import_module(self.worked_in or f"{self.declared_in}_job").run
        return run


_TRAINING = (*MODELS, "peft", "trl.trainer.sft_trainer")

STAGES: tuple[Entry, ...] = (
    Entry("inspect", "tunesmith.tools.pipeline.inspect",
          "measure GPU, VRAM, RAM, swap and disk, and say what fits", expensive=False),
    Entry("base", "tunesmith.tools.models.base",
          "fetch or copy a base model and keep it pristine, with a hash manifest", makes="base",
          worked_in="tunesmith.tools.export.measured_base_job"),
    Entry("baseline", "tunesmith.tools.evaluation.baseline",
          "run the suites on the untouched base and keep every output", ("base",), "suite", serves=True),
    Entry("import", "tunesmith.tools.imports.import_rows",
          "take rows of your own from a file, a folder or a hub data set", ("base",), "rows", expensive=False),
    Entry("generate", "tunesmith.tools.data.generate",
          "write training rows for the behaviour with a served model", ("base",), "rows", serves=True),
    Entry("critique", "tunesmith.tools.data.critique",
          "validate, deduplicate and check the rows against every suite", ("base", "rows"), "dataset", loads=TOKENIZERS,
          without=(TORCH,)),
    Entry("preflight", "tunesmith.tools.training.preflight",
          "smoke-test every link of the chain on a few rows", ("base", "dataset"), "preflight", serves=True,
          loads=_TRAINING, without=UNUSED),
    Entry("train", "tunesmith.tools.training.train",
          "train a low-rank adapter (LoRA, or QLoRA at 4 bits)", ("base", "dataset"), "adapter", loads=_TRAINING,
          without=UNUSED),
    Entry("evaluate", "tunesmith.tools.evaluation.evaluate",
          "run the suites on an arm and compare it case by case", ("base", "suite"), "results", serves=True),
    Entry("merge", "tunesmith.tools.export.merge",
          "merge the adapter into the full-precision base, shard by shard", ("base", "adapter"), "merged",
          loads=(*MODELS, "peft"), without=UNUSED),
    Entry("quantize", "tunesmith.tools.export.quantize",
          "quantize the merged model; lm_head and routers keep full precision", ("merged", "dataset"), "quantized",
          loads=(*MODELS, "llmcompressor.modifiers.gptq"), without=UNUSED),
    Entry("deploy", "tunesmith.tools.export.deploy",
          "serve the chosen model on a local port, or roll back to the one before", ("base",), "deployment",
          serves=True),
    Entry("release", "tunesmith.tools.release.release",
          "write the model for other programs: a GGUF for Ollama, or a folder for a hub; never uploaded",
          ("base", "adapter")),
)  # fmt: skip

CHECKS: tuple[Entry, ...] = (
    Entry("doctor", "tunesmith.tools.pipeline.gpu_check.stage",
          "measure what only a GPU can say, against what tunesmith predicts",
          worked_in="tunesmith.tools.pipeline.gpu_check.run_job"),
)  # fmt: skip
"""Expensive steps that are no part of a pipeline, with a command of their own (`tunesmith doctor --gpu`)."""

BY_NAME = {entry.name: entry for entry in STAGES}
"""What a user, a plan file and a conversation can name as a stage."""
ENTRIES = {entry.name: entry for entry in (*STAGES, *CHECKS)}
"""What a recorded step can be of."""


def before(stage: str) -> frozenset[str]:
    """The stages that make what this one works on, and what those work on."""
    makers = {entry.name for entry in STAGES if entry.makes in ENTRIES[stage].needs}
    return frozenset(makers).union(*map(before, makers))


def maker_of(kind: str) -> str:
    """The stage that makes artifacts of a kind."""
    return next(entry.name for entry in STAGES if entry.makes == kind)
