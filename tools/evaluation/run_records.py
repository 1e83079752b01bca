"""What findings are derived from: a run's finished steps, its comparisons, answers, rows and losses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tunesmith.memory.arms import ARMS
from tunesmith.memory.errors import TunesmithError
from tunesmith.memory.json_values import as_float
from tunesmith.memory.records import EvalResult, Step, TrainingRow
from tunesmith.memory.store import Store
from tunesmith.tools.evaluation.comparison import Comparison
from tunesmith.tools.evaluation.evidence import evidence_of
from tunesmith.tools.evaluation.pairing import compare_run
from tunesmith.tools.evaluation.verdict import Verdict


@dataclass(frozen=True)
class RunRecords:
    """What findings are derived from."""

    store: Store
    run: str
    steps: Mapping[str, Step]
    """Stage → its newest finished step."""

    def pair(self, a: str, b: str) -> Comparison | None:
        """Two arms compared; None where they cannot be."""
        try:
            return compare_run(self.store, self.run, a, b)
        except TunesmithError:
            return None

    def verdict(self, arm: str) -> Verdict:
        """The verdict on an arm against the base."""
        return evidence_of(self.store, self.run, arm).verdict

    def arms(self) -> list[str]:
        """Arms with answers, in their order."""
        rows = self.store.read("SELECT DISTINCT arm FROM eval_results WHERE run = ?", self.run)
        answered = {row["arm"] for row in rows}
        return [arm for arm in ARMS if arm in answered]

    def results(self, arm: str) -> list[EvalResult]:
        """The newest answers of an arm."""
        rows = self.store.read(
            "SELECT step FROM eval_results WHERE run = ? AND arm = ? ORDER BY id DESC LIMIT 1", self.run, arm
        )
        return self.store.results(rows[0]["step"], arm) if rows else []

    def number(self, stage: str, name: str, default: float) -> float:
        """A field that the newest step of a stage ran with."""
        return as_float(self.steps[stage].request.get(name, default)) if stage in self.steps else default

    @property
    def brought(self) -> str:
        """Where a person's rows came from, in a run for which none were written; empty in another."""
        # 600: what generate writes unless told; 0 is asked for where a person's rows are to stay alone.
        written = "generate" in self.steps and self.number("generate", "rows", 600)
        return "" if written or "import" not in self.steps else str(self.steps["import"].request["source"])

    def rows(self) -> list[TrainingRow]:
        """The candidate rows."""
        return self.store.rows(self.steps["generate"].id) if "generate" in self.steps else []

    def validation(self) -> list[float]:
        """The validation losses of the training, in order."""
        return (
            [value for _, value in self.store.metrics(self.steps["train"].id, "validation_loss")]
            if "train" in self.steps
            else []
        )
