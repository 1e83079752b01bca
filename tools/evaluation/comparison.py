"""Two arms held against each other: the typed result that the gate, the report, `compare`, and the advice all read.

One shape each: a `CaseOutcome` is what an arm came to on a case, a `BlockComparison` the counts and the verdict of a
block, a `Comparison` the whole. `Comparison.to_json` is the documented shape of `tunesmith compare`, and the only place
that writes it. Nothing here computes a statistic (`statistics`) or reads the store (`pairing`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Annotated, Literal

from pydantic import BeforeValidator, JsonValue, PlainSerializer, TypeAdapter

Json = dict[str, JsonValue]
Interval = tuple[float, float]
Word = Literal["better", "worse", "not worse", "no decision"]
BETTER: Word = "better"
WORSE: Word = "worse"
NOT_WORSE: Word = "not worse"
NO_DECISION: Word = "no decision"

FlipKind = Literal["pass_to_fail", "fail_to_pass", "error"]
LOST: FlipKind = "pass_to_fail"
GAINED: FlipKind = "fail_to_pass"
ERRED: FlipKind = "error"


@dataclass(frozen=True, slots=True)
class CaseOutcome:
    """What one arm came to on one case, its repeats reduced. With an `error`, `passed` is None."""

    case_id: str
    block: str
    passed: bool | None
    score: float
    error: str | None
    cluster: str
    """The seed row that the case was made from; its own id where it was made from none."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Mean score of each metric that the suite names."""

    @property
    def word(self) -> str:
        """pass, fail or error."""
        return "error" if self.passed is None else "pass" if self.passed else "fail"


@dataclass(frozen=True, slots=True)
class Flip:
    """A case on which two arms differ: pass, fail, error or missing, of each."""

    case_id: str
    block: str
    kind: FlipKind
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class BlockScore:
    """What one arm passed of a block, of the cases that both arms of a comparison answered: an error is no failure."""

    cases: int
    judged: int
    passed: int
    errors: int

    @property
    def rate(self) -> float | None:
        """Passed of judged; None where nothing was judged."""
        return self.passed / self.judged if self.judged else None


@dataclass(frozen=True, slots=True)
class ScoreComparison:
    """Graded scores: each arm's mean, and the bootstrap interval of their paired difference."""

    mean: Mapping[str, float]
    difference: float
    interval: Interval
    resamples: int


@dataclass(frozen=True, slots=True)
class MetricComparison:
    """A metric that the suite names: each arm's mean, the paired difference, and its p-value before and after Holm."""

    cases: int
    mean: Mapping[str, float]
    difference: float
    interval: Interval
    p_value: float
    p_adjusted: float


@dataclass(frozen=True, slots=True)
class BlockComparison:
    """One block: its counts by arm, the exact test, and the word for it."""

    cases: int
    passed: Mapping[str, int]
    """Of the cases that both arms answered."""
    errors: Mapping[str, int]
    """Cases without an answer, those that an arm was never asked included."""
    fail_to_pass: int
    pass_to_fail: int
    p_value: float
    verdict: Word
    reason: str
    tested: bool
    """False where something forbids a verdict, however the cases came out."""
    p_adjusted: float
    judged: int
    """Cases that both arms answered."""
    clusters: int
    """Seed rows that those were made from; as many as cases where each has its own."""
    difference: float | None
    interval: Interval | None
    lower_bound: float | None
    pass_rate_intervals: Mapping[str, Interval]
    detectable: float | None
    """The smallest gain that so many cases can show; None where they can show none."""
    scores: ScoreComparison | None
    mid_p_value: float | None = None
    """Shown next to the exact p-value, deciding nothing; None where an earlier version compared."""

    def score(self, arm: str) -> BlockScore:
        """What one of the two arms passed."""
        return BlockScore(self.cases, self.judged, self.passed[arm], self.errors[arm])


@dataclass(frozen=True, slots=True)
class Comparison:
    """Arm `b` against arm `a`, paired case by case, each by one evaluation."""

    run: str
    steps: Mapping[str, str]
    """Arm → the step whose answers count for it."""
    arms: tuple[str, str]
    differs_in: tuple[str, ...]
    """Parts of the comparability keys in which they differ beside what is under test."""
    refused: str
    """Why there is no verdict: each difference with both values; empty where they may be compared."""
    blocks: Mapping[str, BlockComparison]
    metrics: Mapping[str, MetricComparison]
    flips: tuple[Flip, ...]
    """Losses first."""
    alpha: float
    margin: float
    left_out: Mapping[str, int] = field(default_factory=dict)
    """Block → cases of the suite that were not asked of both alike, and so tell nothing of the two."""
    precision_changes: str = ""
    """Where a hop that is not about precision changes it too, as a merge does whose base is measured at 4 bits: from
    what to what."""

    @property
    def comparable(self) -> bool:
        """Whether they differ in nothing but what is under test."""
        return not self.differs_in

    def flips_of(self, kind: FlipKind) -> list[Flip]:
        """The cases that flipped one way."""
        return [flip for flip in self.flips if flip.kind == kind]

    def verdict_on(self, block: str) -> Word | None:
        """The word for a block; None where no case of it was asked."""
        compared = self.blocks.get(block)
        return compared.verdict if compared else None

    def to_json(self) -> Json:
        """The documented shape of `tunesmith compare`."""
        a, b = self.arms
        document: Json = _comparison().dump_python(self, mode="json", exclude={"flips"})
        flips: list[JsonValue] = [
            {"case_id": flip.case_id, "block": flip.block, "flip": flip.kind, a: flip.before, b: flip.after}
            for flip in self.flips
        ]
        return {**document, "comparable": self.comparable, "flips": flips}

    @classmethod
    def from_json(cls, data: Mapping[str, object]) -> Comparison:
        """What `to_json` wrote. Raises ValueError where it is something else."""
        a, b = TypeAdapter(tuple[str, str]).validate_python(data.get("arms"))
        flips = [
            {"case_id": f["case_id"], "block": f["block"], "kind": f["flip"], "before": f[a], "after": f[b]}
            for f in TypeAdapter(list[dict[str, str]]).validate_python(data.get("flips"))
        ]
        known = {f.name: data[f.name] for f in fields(cls) if f.name in data}
        return _comparison().validate_python({**known, "flips": flips})


@cache  # built when first asked for: few need it
def _comparison() -> TypeAdapter[Comparison]:
    return TypeAdapter(Comparison)


def _from_stored(value: object) -> object:
    return Comparison.from_json(value) if isinstance(value, dict) else value


StoredComparison = Annotated[
    Comparison, BeforeValidator(_from_stored), PlainSerializer(Comparison.to_json, return_type=Json)
]
"""A comparison as a field of a stage's result: stored, and read back, in the shape of `to_json`."""
