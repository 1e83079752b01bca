"""What a stage holds while it works: its request, its inputs, its folder, and the ways to report.

A stage's work is `run(job) -> Result`. It may be killed at any line; whatever it published before that is whole,
and running again in the same folder goes on from there.
"""

from __future__ import annotations

import json
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from tunesmith.memory.digests import Digests
from tunesmith.memory.errors import StepFailed
from tunesmith.memory.files import Manifest, read_manifest, seal, sha256_file, verify
from tunesmith.memory.records import Artifact, Step
from tunesmith.memory.store import Store
from tunesmith.tools.core.rates import COMPUTE, START
from tunesmith.tools.core.stage import Plan, Request
from tunesmith.tools.core.time_left import WAIT, TimeLeft

R = TypeVar("R", bound=Request, covariant=True)
T = TypeVar("T")
RESULT_FILE = "result.json"
PATIENCE_S = 600.0
"""What waits longer than that, for another program's lock or for room on the disk, ends by itself no more: a person has
to act."""
_PROGRESS_EVERY_S, _REPEATED_EVERY_S = 0.2, 2.0
"""Five lines a second are all that an eye follows, and each is a commit; without news a line each 2 s shows that it
lives."""
_BEST_EFFORT_WAIT_S = 0.5
"""For a lock, where only what a person sees is at stake: the work must not stand still for it."""
_STORE_PAUSE_S = 2.0
"""A lock of another program, or a full disk, is not over sooner."""


def sealed_pin(name: str) -> str:
    """What the manifest of a folder is pinned as, beside the folder itself."""
    return f"{name}, sealed"


@dataclass(slots=True)
class Job(Generic[R]):
    """One step at work."""

    store: Store
    step: Step
    plan: Plan
    request: R
    inputs: Mapping[str, Artifact]
    """Artifacts by the name that the plan gave them; `verified(name)` proves the bytes of one."""
    dir: Path
    """runs/<run>/<step>/: this step's own folder, kept when it is resumed."""
    vllm: str | None = None
    """The vllm program, for stages that serve."""
    watched: list[int] = field(default_factory=list)
    """Pids beside this worker whose memory belongs to the step, such as a vLLM server that it uses."""
    alone: bool = False
    """Whether this process ends with the step, so that what it loads may leave out what other work would need."""
    time_left: TimeLeft = field(init=False)
    _began: float = field(default_factory=time.monotonic)
    _at_once: threading.Lock = field(default_factory=threading.Lock)
    _note: str = ""
    _progress_at: float = 0.0
    _points: list[tuple[str, float, float, float]] = field(default_factory=list)
    """Points of curves that the store has not taken yet."""
    _store_again_at: float = 0.0

    def __post_init__(self) -> None:
        price = self.plan.estimate
        self.time_left = TimeLeft(price.parts or {COMPUTE: price.seconds}, price.answers)

    @property
    def home(self) -> Path:
        """TUNESMITH_HOME."""
        return self.store.home

    @property
    def run(self) -> str:
        """The run this step belongs to."""
        return self.step.run

    def progress(self, done: float, total: float, note: str = "", *, kind: str = "") -> None:
        """Tell whoever follows how far this pass of a kind of work is; throttled, so call it as often as you like.

        What is told is how far the whole step is, in seconds. Without a kind it is the step's usual one; without units,
        before any work has begun, its start.
        """
        with self._at_once:
            left = self.time_left
            begins = left.kind in (START, WAIT) and not total
            left.report(kind or (START if begins else left.usual_kind), done, total, self._elapsed_s)
            self._note = note
            if done >= total or time.monotonic() - self._progress_at >= _PROGRESS_EVERY_S:
                self._tell()

    def go_on(self) -> None:
        """Tell how far the step is where nothing was reported for a while: time passes all the same."""
        with self._at_once:
            if self._note and time.monotonic() - self._progress_at >= _REPEATED_EVERY_S:
                self._tell()

    def ended(self) -> Mapping[str, float]:
        """Seconds that every kind of work took, of a step that is at its end."""
        with self._at_once:
            return {kind: round(seconds, 2) for kind, seconds in self.time_left.end(self._elapsed_s).items()}

    @property
    def _elapsed_s(self) -> float:
        return time.monotonic() - self._began

    def _tell(self) -> None:
        self._progress_at = time.monotonic()
        done, whole = self.time_left.progress(self._elapsed_s)
        note = "; ".join(filter(None, (self._note, self.time_left.word)))
        self.best_effort(
            lambda: self.store.progress(self.step.id, round(done, 2), round(whole, 2), note, wait_s=_BEST_EFFORT_WAIT_S)
        )

    def metric(self, name: str, value: float, x: float) -> None:
        """A point of a curve; kept here for as long as the store cannot take it."""
        self._points.append((name, x, value, time.time()))
        self.best_effort(self._write_points)

    def best_effort(self, write: Callable[[], object]) -> None:
        """Write what the work does not depend on: a store that is busy, full or read-only ends nothing.

        After a failure the next attempt waits a little, so that a long lock does not slow the work down either.
        """
        if time.monotonic() < self._store_again_at:
            return
        try:
            write()
        except sqlite3.OperationalError as error:
            self._store_again_at = time.monotonic() + _STORE_PAUSE_S
            self.log(f"the store could not be written ({error}); the work goes on")

    def patiently(self, write: Callable[[], T]) -> T:
        """Write what must not be lost: tried again for `PATIENCE_S` where the store is busy or its disk is full."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                return write()
            except sqlite3.OperationalError as error:
                if time.monotonic() > deadline:
                    raise
                self.log(f"the store could not be written ({error}); trying again")
                time.sleep(_STORE_PAUSE_S)

    def flush(self) -> None:
        """Write the points that are still kept here. Raises what `patiently` raises."""
        if self._points:
            self.patiently(self._write_points)

    def _write_points(self) -> None:
        points = list(self._points)
        self.store.add_metrics(self.step.id, points, wait_s=_BEST_EFFORT_WAIT_S)
        del self._points[: len(points)]  # what came while it was written stays

    @property
    def result_file(self) -> Path:
        """Where the result of a step that is done lies until the store has it."""
        return self.dir / RESULT_FILE

    def log(self, text: str) -> None:
        """A line of the step's log."""
        print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)

    def verified(self, name: str) -> Artifact:
        """As `unchanged`, of an input."""
        return self.unchanged(self.inputs[name])

    def unchanged(self, artifact: Artifact) -> Artifact:
        """Any artifact after its bytes were hashed again: an input, or one that an input was made from.

        A file that nobody may write is hashed once for as long as the disk says that nothing touched it
        (`memory.digests`). Raises StepFailed where its bytes are not the recorded ones.
        """
        if artifact.path.is_dir():
            verify(artifact.path, artifact.sha256, sha256_of=Digests(self.home).sha256)
        elif not artifact.path.is_file() or sha256_file(artifact.path) != artifact.sha256:
            raise StepFailed(f"{artifact.path} is missing or changed since {artifact.step} made it; run that again")
        return artifact

    def agreed(self, name: str, sha256: str) -> None:
        """Raises StepFailed where the approved plan pins no such thing, or another: it was changed since the yes."""
        if self.plan.pins.get(name) == sha256:
            return
        again = f"plan the step again with `tunesmith {self.step.stage}`"
        if name not in self.plan.pins:
            raise StepFailed(f"the approved plan does not say which {name} it is for; {again}")
        raise StepFailed(
            f"the {name} {'were' if name.endswith('s') else 'was'} changed after its plan was approved: its sha256 is "
            f"now {sha256[:12]}, agreed was {self.plan.pins[name][:12]}; {again}"
        )

    def agreed_folder(self, name: str, folder: Path, fingerprint: str) -> None:
        """As `agreed`, for a folder that is known by where its files lie on the disk, too.

        One that was sealed when the plan was made may lie elsewhere by now, as after a move to another disk: it is
        hashed again. Raises StepFailed where its bytes are other ones.
        """
        sealed = self.plan.pins.get(sealed_pin(name))
        if sealed and self.plan.pins.get(name) != fingerprint:
            verify(folder, sealed)
            self.log(f"{folder} was moved or copied after its plan was approved: hashed again, it holds the same files")
        else:
            self.agreed(name, fingerprint)

    def sealed(self, folder: Path) -> Manifest | None:
        """The manifest of a folder that this step has sealed; None where it has not yet.

        A model's copy outside of the step's folder is known by its bytes alone. Raises StepFailed for a folder that
        another store, another step or a plan without this step's yes has sealed.
        """
        manifest = read_manifest(folder)
        if manifest is None or not folder.is_relative_to(self.dir):
            return manifest
        seal_of = [manifest.get(name) for name in ("store", "step", "plan")]
        if seal_of[:2] == [self.store.identity, self.step.id] and seal_of[2] in self.store.agreed_plans(self.step.id):
            return manifest
        raise StepFailed(
            f"{folder} was sealed by {seal_of[1]} of store {str(seal_of[0])[:12]} for plan {str(seal_of[2])[:12]}, "
            f"and this is {self.step.id} of {self.store.identity[:12]}; move that folder away, then "
            f"`tunesmith run --resume {self.run}` goes on"
        )

    def publish(
        self, kind: str, path: Path, *, parents: Sequence[str] | None = None, meta: Mapping[str, object] | None = None
    ) -> Artifact:
        """Seal `path` (a folder, or one file) and record it as this step's artifact.

        Its parents are all inputs of the step unless given. A folder that this step has sealed is taken as it is.
        Raises StepFailed for one that another has.
        """
        if path.is_dir():
            own = {"store": self.store.identity, "step": self.step.id, "plan": self.step.plan_hash}
            manifest = self.sealed(path) or seal(path, kind=kind, **own)
            digest, size = manifest["sha256"], manifest["bytes"]
        else:
            digest, size = sha256_file(path), path.stat().st_size
        parent_ids = [a.id for a in self.inputs.values()] if parents is None else list(parents)
        artifact = Artifact("", self.run, self.step.id, kind, path, digest, size, tuple(parent_ids), dict(meta or {}))
        recorded = self.patiently(lambda: self.store.add_artifact(artifact))
        data = {"artifact": recorded.id, "kind": kind}
        self.best_effort(lambda: self.store.event("artifact.made", run=self.run, step=self.step.id, **data))
        return recorded

    def write_json(self, name: str, value: object) -> Path:
        """Write `value` as JSON into the step's folder, atomically, and return its path."""
        from tunesmith.memory.files import atomic_write

        path = self.dir / name
        atomic_write(path, json.dumps(value, indent=1, ensure_ascii=False, default=str))
        return path
