"""What the store hands out: frozen records of runs, steps and artifacts."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import NamedTuple

from tunesmith.memory.json_values import as_int, as_list, as_object
from tunesmith.memory.places import Places
from tunesmith.memory.row_attributes import RowAttributes

# A step's life. `planned` waits for a yes; `approved` waits for its worker; the last five are ends.
PLANNED, APPROVED, RUNNING = "planned", "approved", "running"
DONE, FAILED, STOPPED, DECLINED, ABANDONED = "done", "failed", "stopped", "declined", "abandoned"
ENDED = (DONE, FAILED, STOPPED, DECLINED, ABANDONED)
BEGUN = f"(s.started_at IS NOT NULL OR s.status NOT IN ('{PLANNED}', '{DECLINED}', '{ABANDONED}'))"
"""Which rows `s` of `steps` are steps of a run. The others are prices that nobody agreed to: looking leaves no step."""
WAITING = "waiting"
"""Of a run: its next step waits for a yes, or for somebody to go on with it."""


class Worker(NamedTuple):
    """Who claimed a step, in the words of its row: what ends a step says whose work it ends."""

    pid: int
    ticks: int | None


@dataclass(frozen=True, slots=True)
class Artifact:
    """Something a step made: a sealed folder or a file, its digest, and what it was made from."""

    id: str
    run: str
    step: str
    kind: str
    """model, adapter, rows, suite-results, checkpoint, server, report …"""
    path: Path
    sha256: str
    bytes: int
    parents: tuple[str, ...] = ()
    meta: dict[str, object] = field(default_factory=dict)

    @classmethod
    def of(cls, row: sqlite3.Row, places: Places) -> Artifact:
        """The record behind a row of `artifacts`."""
        return cls(
            id=row["artifact"],
            run=row["run"],
            step=row["step"],
            kind=row["kind"],
            path=places.path(row["path"]),
            sha256=row["sha256"],
            bytes=row["bytes"],
            parents=tuple(json.loads(row["parents"])),
            meta=places.from_json(row["meta"]),
        )

    @property
    def config(self) -> Mapping[str, object]:
        """Of a model: its config.json. Raises KeyError where its record lacks it."""
        return as_object(self.meta["config"])

    @property
    def known_config(self) -> Mapping[str, object]:
        """The same, empty where its record lacks it."""
        return self.config if "config" in self.meta else {}

    def count(self, name: str, otherwise: float | None = None) -> int:
        """A number that is known of it, or `otherwise`; without one, KeyError where it is not known."""
        return as_int(self.meta[name] if otherwise is None else self.meta.get(name, otherwise))


DRIVER_RUN = "driver"
"""Name of the run in which the conversation's own model was fetched."""
CHECK_RUN = "checks"
"""Name of the run in which checks of this machine are kept."""
ASIDE_RUNS = (DRIVER_RUN, CHECK_RUN)
"""Names of runs that train nothing: they are nobody's newest run."""


class RunRule(Enum):
    """Which run a step belongs to where none is named."""

    NEWEST = "the newest; there must be one"
    OWN = "a new one, unless the newest lacks what this makes: a run has one of it"
    DRIVER = "the one in which the conversation's own model is kept"
    CHECKS = "the one in which checks of this machine are kept"


def planned_stages(plan: Mapping[str, object]) -> str:
    """The stages of a written plan in their order, as a JSON list; `[]` where the document is no plan."""
    steps = plan.get("steps") if isinstance(plan, dict) else None
    stages = [step.get("stage") for step in steps if isinstance(step, dict)] if isinstance(steps, list) else []
    return json.dumps([str(stage) for stage in stages])


class StepCounts(NamedTuple):
    """How far a run is: of the steps of its plan; of one without a plan, of those that began."""

    done: int
    total: int

    def __str__(self) -> str:
        return f"{self.done} of {self.total}"


class Refusal(NamedTuple):
    """What a gate refused a run, and its sentence."""

    stage: str
    reason: str

    @property
    def brief(self) -> str:
        """In the words that follow the status of a run."""
        return f"not {self.stage.removesuffix('e')}ed: the gate refused"


@dataclass(frozen=True, slots=True)
class Run:
    """One attempt at a goal: a named row of steps."""

    id: str
    name: str
    goal: str
    status: str
    plan: dict[str, object]
    created_at: float
    finished_at: float | None

    @classmethod
    def of(cls, row: sqlite3.Row, places: Places) -> Run:
        """The record behind a row of `runs`."""
        return cls(
            id=row["run"],
            name=row["name"],
            goal=row["goal"],
            status=row["status"],
            plan=places.from_json(row["plan"]),
            created_at=row["created_at"],
            finished_at=row["finished_at"],
        )

    @property
    def planned(self) -> list[dict[str, object]]:
        """The steps of its plan: `stage` and `fields` of each; none without a plan."""
        return [as_object(step) for step in as_list(self.plan.get("steps", []))]


@dataclass(frozen=True, slots=True)
class Step:
    """One stage of one run: what was asked, what it was priced at, who said yes, how it went."""

    id: str
    run: str
    stage: str
    arm: str
    status: str
    request: dict[str, object]
    plan: dict[str, object]
    plan_hash: str
    inputs: dict[str, str]
    """Input name → artifact id, as resolved when the plan was made."""
    approval: str | None
    estimated_seconds: float
    estimated_peak_bytes: int
    pid: int | None
    pid_started: float | None
    boot_id: str | None
    pid_ticks: int | None
    """When its worker began, in ticks since the boot; None off Linux, and where an earlier version started it."""
    host: str | None
    pid_namespace: str | None
    """Where the pid of its worker counts; None where an earlier version started it."""
    created_at: float
    started_at: float | None
    finished_at: float | None
    seconds: float | None
    peak_rss_bytes: int | None
    peak_vram_bytes: int | None
    done: float
    total: float
    note: str
    result: dict[str, object] | None
    error: str | None

    @property
    def worker(self) -> Worker | None:
        """Who claimed it last."""
        return None if self.pid is None else Worker(self.pid, self.pid_ticks)

    @property
    def on(self) -> str:
        """The other machine that carries it out, as its price told it; empty: this one."""
        return str(self.plan.get("on", ""))

    @property
    def report(self) -> dict[str, object]:
        """What it reported, by the fields of its stage's result; empty before it is done."""
        return self.result or {}

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen to this step by itself."""
        return self.status in ENDED

    @classmethod
    def of(cls, row: sqlite3.Row, places: Places) -> Step:
        """The record behind a row of `steps`."""
        # A newer version may have added a column while this process was at work; a Row iterates over its values.
        values = {key: row[key] for key in row.keys() if key in cls.__dataclass_fields__}  # noqa: SIM118
        for name in ("request", "plan", "inputs"):
            values[name] = places.from_json(values[name])
        values["result"] = places.from_json(values["result"]) if values["result"] else None
        values["error"] = places.present(values["error"])
        return cls(id=row["step"], **values)


@dataclass(frozen=True, slots=True)
class AssertionResult:
    """What one assertion said of an answer."""

    type: str
    passed: bool
    score: float
    reason: str


@dataclass(frozen=True, slots=True)
class EvalResult:
    """One case answered by one arm, once. `passed` is None where an error kept it from being graded."""

    arm: str
    block: str
    case_id: str
    key_hash: str
    output: str
    passed: bool | None
    score: float | None
    repeat: int = 0
    error: str | None = None
    tool_calls: list[dict[str, object]] = field(default_factory=list)
    finish_reason: str = ""
    assertions: list[AssertionResult] = field(default_factory=list)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    latency_ms: float = 0.0


BLIND_SHOWN = "blind.shown"
"""Event of a run whose blind cases somebody opened: from then on they are shown."""
KEEP = "keep"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was decided about a training row."""

    kind: str
    """`keep`, or what the row is dropped for, such as leak or duplicate: rows are counted by it."""
    reason: str = ""
    """What there is to say of this one row beside the kind; for people, never taken apart."""

    @property
    def keeps(self) -> bool:
        """Whether the row is trained on."""
        return self.kind == KEEP

    def __str__(self) -> str:
        return f"{self.kind}: {self.reason}" if self.reason else self.kind


_NOTHING_KNOWN = RowAttributes()


@dataclass(frozen=True, slots=True)
class TrainingRow:
    """One candidate row: the conversation it trains on, where it came from, and whether it was kept."""

    row_id: str
    origin: str
    """generated (written for drawn attributes) or rehearsal (the base's own answers, against forgetting)."""
    prompt: Sequence[Mapping[str, object]]
    completion: Sequence[Mapping[str, object]]
    attributes: RowAttributes = _NOTHING_KNOWN
    split: str = "train"
    verdict: Verdict | None = None
    """None before critique."""

    @property
    def answer(self) -> str:
        """What it answers last; tool calls as {"name": …, "arguments": {…}}, one a line."""
        last: Mapping[str, object] = self.completion[-1] if self.completion else {}
        tool_calls = [as_object(call) for call in as_list(last.get("tool_calls") or [])]
        calls = [as_object(call.get("function", call)) for call in tool_calls]
        texts = [{"name": one.get("name"), "arguments": one.get("arguments")} for one in calls]
        return "\n".join(json.dumps(text, ensure_ascii=False) for text in texts) or str(last.get("content") or "")

    @property
    def usable(self) -> bool:
        """Whether critique kept it."""
        return self.verdict is not None and self.verdict.keeps

    @property
    def dropped(self) -> bool:
        """Whether critique dropped it."""
        return self.verdict is not None and not self.verdict.keeps
