"""The rest of a report's facts: training, its rows, times and memory, approvals, lineage, what is served."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tunesmith.memory.json_values import as_int, as_object
from tunesmith.memory.records import DONE, Artifact, Step, TrainingRow
from tunesmith.memory.store import Store
from tunesmith.tools.core.auto import readable_value
from tunesmith.tools.export.audit import Audit
from tunesmith.tools.serving import servers
from tunesmith.tools.training.train import TrainRequest

_EXAMPLES = 4
"""Of each kind of row: to see what was taught."""
_REASON_KINDS = 12
"""The rest is counted: a page is no log."""
_VALIDATION = re.compile(r"val|eval|held|dev", re.IGNORECASE)
_REQUEST_FIELDS = (
    "lora_rank", "lora_alpha", "learning_rate", "epochs", "max_steps", "batch_size", "max_seq_len_tokens",
    "precision", "load_in_4bit", "seed",
)  # fmt: skip
_RESULT_FIELDS = ("choice", "steps", "trainable_parameters", "trained_tokens", "tokens_per_second")


@dataclass(frozen=True, slots=True)
class Curve:
    """Points of a loss as (optimiser step, value); values that are not finite are counted and left out."""

    points: list[tuple[float, float]]
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class Training:
    """How one train step went."""

    step: Step
    train: Curve
    validation: Curve
    settings: dict[str, object]
    outcome: dict[str, object]


@dataclass(frozen=True, slots=True)
class Reason:
    """A kind of reason, how many rows were dropped for it, and what the first one's reason says beyond its kind."""

    kind: str
    rows: int
    example: str


@dataclass(frozen=True, slots=True)
class Rows:
    """Candidate training rows of a run, with what critique decided."""

    total: int
    usable: int
    dropped: int
    validation: int
    """Of the kept ones, those held out of training."""
    origins: dict[str, int]
    """Origin → kept rows."""
    reasons: list[Reason]
    """Why rows were dropped, the commonest first."""
    usable_examples: list[TrainingRow]
    dropped_examples: list[TrainingRow]

    @property
    def undecided(self) -> int:
        """Rows that critique has not judged."""
        return self.total - self.usable - self.dropped


@dataclass(frozen=True, slots=True)
class StepCost:
    """What a step took beside what its plan said."""

    step: Step
    peak_bytes: int | None
    estimated_peak_bytes: int
    memory: str
    """RAM or VRAM: whichever the plan priced."""


@dataclass(frozen=True, slots=True)
class Served:
    """The newest deployment of the whole store, and whether its server runs at this moment."""

    now: bool
    artifact: Artifact
    arm: str
    url: str
    this_run: bool
    of: str
    """Id of the artifact that it serves."""


def audits(steps: Sequence[Step]) -> list[tuple[Step, Audit]]:
    """What the saved bytes of a model said when its step had written them, the oldest first; steps of earlier versions
    recorded nothing of it."""
    return [(step, audit) for step in steps if step.status == DONE and (audit := Audit.of(step))]


def trainings(store: Store, steps: Sequence[Step]) -> list[Training]:
    """The train steps of a run that got as far as a loss or an end, the oldest first."""
    return [t for step in steps if step.stage == "train" if (t := _training(store, step)).train.points or step.ended]


def _training(store: Store, step: Step) -> Training:
    names = [row["name"] for row in store.read("SELECT DISTINCT name FROM metrics WHERE step = ?", step.id)]
    losses = [name for name in names if "loss" in name.lower()]
    validation = [name for name in losses if _VALIDATION.search(name)]
    train = [name for name in losses if name not in validation]
    asks = TrainRequest.model_fields
    return Training(
        step,
        _curve(store, step.id, train),
        _curve(store, step.id, validation),
        {name: readable_value(asks[name], step.request[name]) for name in _REQUEST_FIELDS if name in step.request},
        {name: step.report[name] for name in _RESULT_FIELDS if name in step.report},
    )


def _curve(store: Store, step: str, names: Sequence[str]) -> Curve:
    """The metric with the most points, where a trainer logs a loss under several names."""
    points = max((store.metrics(step, name) for name in names), key=len, default=[])
    finite = [(x, value) for x, value in points if math.isfinite(x) and math.isfinite(value)]
    return Curve(finite, len(points) - len(finite))


def training_rows(store: Store, run: str) -> Rows | None:
    """Counts and a few examples of the newest set of rows of a run; None where it has none."""
    newest = store.read("SELECT step FROM rows WHERE run = ? ORDER BY id DESC LIMIT 1", run)
    if not newest:
        return None
    step = newest[0]["step"]
    rows = store.rows(step)
    usable = [row for row in rows if row.usable]
    dropped = [row for row in rows if row.dropped]
    seen = [row for row in dropped if not row.attributes.hidden]
    by_origin = _by_kind(usable, lambda row: row.origin)
    return Rows(
        total=len(rows),
        usable=len(usable),
        dropped=len(dropped),
        validation=sum(row.split != "train" for row in usable),
        origins={origin: len(group) for origin, group in by_origin.items()},
        reasons=_reasons(dropped),
        usable_examples=_examples(by_origin),
        dropped_examples=_examples(_by_kind(seen, _kind)),
    )


def _by_kind(rows: Sequence[TrainingRow], kind: Callable[[TrainingRow], str]) -> dict[str, list[TrainingRow]]:
    """Rows grouped, the largest group first."""
    groups: dict[str, list[TrainingRow]] = {}
    for row in rows:
        groups.setdefault(kind(row), []).append(row)
    return dict(sorted(groups.items(), key=lambda item: -len(item[1])))  # the largest first


def _kind(row: TrainingRow) -> str:
    return row.verdict.kind if row.verdict else ""


def _reasons(dropped: Sequence[TrainingRow]) -> list[Reason]:
    groups = list(_by_kind(dropped, _kind).items())
    reasons = [
        Reason(kind, len(rows), rows[0].verdict.reason if rows[0].verdict else "")
        for kind, rows in groups[:_REASON_KINDS]
    ]
    rest = sum(len(rows) for _, rows in groups[_REASON_KINDS:])
    return [*reasons, *([Reason("other reasons", rest, "")] if rest else [])]


def _examples(groups: Mapping[str, Sequence[TrainingRow]]) -> list[TrainingRow]:
    """The first rows of the largest groups, by rule: examples are not picked by hand."""
    rounds = itertools.chain.from_iterable(itertools.zip_longest(*groups.values()))
    return list(itertools.islice((row for row in rounds if row is not None), _EXAMPLES))


def costs(steps: Sequence[Step]) -> list[StepCost]:
    """What every step that was started took, in order."""
    return [_cost(step) for step in steps if step.started_at is not None]


def _cost(step: Step) -> StepCost:
    price = as_object(step.plan.get("estimate", {}))
    on_gpu = bool(price.get("peak_vram_bytes")) and bool(step.peak_vram_bytes)
    return StepCost(
        step,
        step.peak_vram_bytes if on_gpu else step.peak_rss_bytes or None,
        as_int(price["peak_vram_bytes"] if on_gpu else price.get("peak_ram_bytes") or step.estimated_peak_bytes),
        "VRAM" if on_gpu else "RAM",
    )


def approvals(store: Store, run: str) -> list[dict[str, object]]:
    """Every decision about a step of a run that began, the oldest first: its record, with the price that it names."""
    begun = {step.id for step in store.steps(run)}
    rows = store.read("SELECT * FROM approvals ORDER BY rowid")
    return [{**dict(row), "price": json.loads(row["price"])} for row in rows if row["step"] in begun]


def ancestry(store: Store, artifact: str) -> list[str]:
    """What an artifact was made from, the farthest ancestor first, itself last."""
    rows = store.read(
        "SELECT ancestor, ancestor_kind, max(depth) AS far FROM v_lineage WHERE artifact = ?"
        " GROUP BY ancestor ORDER BY far DESC, ancestor",
        artifact,
    )
    return [f"{row['ancestor_kind']} {row['ancestor']}" for row in rows]


def served(store: Store, run: str) -> Served | None:
    """The newest finished deployment, of whichever run; None where nothing was ever deployed."""
    deployments = [one for one in store.newest_of_kind("deployment") if store.step(one.step).status == DONE]
    if not deployments:
        return None
    artifact, result = deployments[0], store.step(deployments[0].step).report
    meta = artifact.meta
    of = str(meta.get("serves") or next(iter(artifact.parents), ""))
    server = servers.serving_now(store.home, of)
    return Served(
        server is not None,
        artifact,
        arm=str(meta.get("arm") or store.step(artifact.step).arm),
        url=server.url if server else str(meta.get("url") or result.get("url", "")),
        this_run=artifact.run == run,
        of=of,
    )
