"""What another machine has to compute with, for the prices of steps that are carried out there.

A program of ours on it says so: its cards, memory, measured rates and version. The answer is good for two minutes, so
that a plan of many steps asks once.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from tunesmith.memory.errors import BadInput, StepFailed
from tunesmith.memory.files import atomic_write
from tunesmith.memory.json_values import as_list, as_object, as_record
from tunesmith.memory.records import RUNNING, Step
from tunesmith.tools.core.format import duration, size
from tunesmith.tools.core.machine import Gpu, Machine, chosen_gpu
from tunesmith.tools.core.rates import Rates
from tunesmith.tools.core.stage import Facts, Plan
from tunesmith.tools.pipeline.guest import MARK, versions
from tunesmith.tools.pipeline.planning_facts import margin_of, past_steps
from tunesmith.tools.pipeline.ray_launcher import RayLauncher, connect
from tunesmith.tools.pipeline.ray_settings import RAY, RaySettings
from tunesmith.tools.pipeline.storage import Storage
from tunesmith.tools.pipeline.workspace import Workspace

_HOME_ID, _SEEN = "ray-home-id", "ray-machine.json"
_GOOD_FOR_S, _WITHIN_S, _LOOK_S = 120.0, 300.0, 0.3
"""How long what a machine said of itself goes for now; how long it may take to say it: its cores may all be in use."""
_CLOCK_S = 60.0
"""Clocks that differ by less confuse nobody."""


@dataclass(frozen=True, slots=True)
class There:
    """Another machine as it described itself."""

    place: str
    """Host and port of its head."""
    machine: Machine
    vllm: str | None
    cpu_builds: frozenset[str]
    rates: Mapping[str, Rates]
    report: Mapping[str, object]
    """What `inspect` says of it."""
    ahead_s: float = 0.0
    """How far its clock is ahead of ours."""

    @classmethod
    def of(cls, place: str, answer: Mapping[str, object], ahead_s: float) -> There:
        """The machine behind an answer of `guest`."""
        seen, vllm = as_object(answer["machine"]), answer["vllm"]
        gpus = tuple(as_record(Gpu, gpu) for gpu in as_list(seen["gpus"]))
        rates = {device: as_record(Rates, one) for device, one in as_object(answer["rates"]).items()}
        builds, report = frozenset(map(str, as_list(answer["cpu_builds"]))), as_object(answer["report"])
        machine = as_record(Machine, {**seen, "gpus": gpus})
        return cls(place, machine, None if vllm is None else str(vllm), builds, rates, report, ahead_s)

    def __str__(self) -> str:
        card = chosen_gpu(self.machine.gpus)
        what = f"one {card.name} of {size(card.total_bytes)}" if card else f"{self.machine.cores} cores, no card"
        return f"{self.place}, {what}"

    @property
    def notes(self) -> tuple[str, ...]:
        """What a price says beside itself."""
        if abs(self.ahead_s) < _CLOCK_S:
            return ()
        way = "ahead of" if self.ahead_s > 0 else "behind"
        difference = f"the clock of {self.place} is {duration(abs(self.ahead_s))} {way} this one"
        return (f"{difference}; what is recorded goes by this one",)


def home_id(home: Path) -> str:
    """What a home is called on other machines, where several may send steps; made once."""
    path = home / _HOME_ID
    with contextlib.suppress(FileExistsError):  # another process of this home named it just now: its name counts
        atomic_write(path, uuid.uuid4().hex[:12], mode=0o600, new=True)  # as all of a home
    return path.read_text().strip()


def facts_for(ws: Workspace, request: object, facts: Facts) -> Facts:
    """The facts of a plan where its request says that the other machine computes; the artifacts are this home's.

    Raises BadInput where no step can be carried out there.
    """
    if not is_there(request):
        return facts
    there = seen(ws.store.home, ws.ray)
    return replace(
        facts,
        machine=there.machine,
        vllm=there.vllm,
        vllm_from=f"{there.place} has none: run `make setup` there",
        cpu_builds=there.cpu_builds,
        past=past_steps(ws.store, there.machine),
        measured=there.rates,
        margin=margin_of(ws.store, there.machine, there.cpu_builds),
        served=frozenset(),
        there=str(there),
        notes=there.notes,
    )


def check_reached(ws: Workspace, requests: Iterable[object]) -> None:
    """Raises BadInput where a request says to be carried out on the other machine, and none can be."""
    if any(is_there(request) for request in requests):
        seen(ws.store.home, ws.ray)


def is_there(request: object) -> bool:
    """Whether a request, or the fields of one, says to be carried out on the other machine."""
    named = request.get("on") if isinstance(request, Mapping) else getattr(request, "on", "")
    return named == RAY


def leaves(ws: Workspace, begun: Step, fields: Mapping[str, object]) -> bool:
    """Whether a step that was begun on one machine has to begin anew on another; what is at work of it there ends.

    One that has a worker goes on where it is. A machine that does not answer keeps nobody from it: that is said.
    """
    if begun.status == RUNNING or is_there(begun.request) == is_there(fields):
        return False
    if is_there(begun.request) and begun.started_at:
        try:
            launcher = RayLauncher(connect(ws.ray, ws.store.home), ws.ray.head().place, step=step_name(begun))
            for name in attempts(ws.store.home, begun, launcher):
                if launcher.alive(name):
                    launcher.stop(name)
        except (BadInput, StepFailed) as error:  # what cannot be asked is said, and holds up nothing here
            text = f"{begun.id} may still be at work there, and what it makes is not taken: {error}"
            ws.emit("message", stage=begun.stage, text=text)
    return True


def step_name(step: Step) -> str:
    """What a step is known by there beside its id."""
    return f"{step.stage} {step.created_at}"


def attempt_name(home: Path, step: Step, attempt: int) -> str:
    """Under which name an attempt at a step is started there; the first one is 1."""
    return f"tunesmith-{home_id(home)}-{step.id}-{attempt}"


def attempts(home: Path, step: Step, launcher: RayLauncher) -> list[str]:
    """The names of all attempts at a step that are known there, the first one first."""
    names = (attempt_name(home, step, number) for number in itertools.count(1))
    return list(itertools.takewhile(launcher.knows, names))


def check_place(plan: Plan, settings: RaySettings) -> None:
    """Raises BadInput where a plan was priced for a machine that the settings no longer name."""
    if plan.on and not plan.on.startswith(f"{settings.head().place}, "):
        raise BadInput(
            f"this {plan.stage} was priced for {plan.on}, and settings.toml names {settings.head().place}; "
            f"price it again with `tunesmith {plan.stage}`"
        )


def seen(home: Path, settings: RaySettings) -> There:
    """The other machine, asked now or within two minutes. Raises BadInput where no step can be carried out there."""
    place, path = settings.head().place, home / _SEEN
    try:
        known = json.loads(path.read_text())
        # Below 0: the clock was set back since.
        if known["settings"] == settings.model_dump() and 0 <= time.time() - known["at"] < _GOOD_FOR_S:
            return There.of(place, known["answer"], known["ahead_s"])
    except (OSError, ValueError, KeyError, TypeError):  # never asked, or kept by another version: it is asked now
        pass
    try:
        return look(home, settings, RayLauncher(connect(settings, home), place))
    except StepFailed as error:  # nothing was started
        raise BadInput(str(error)) from None


def look(home: Path, settings: RaySettings, launcher: RayLauncher) -> There:
    """Ask the other machine what it has. Raises StepFailed with the reason where it does not say."""
    place, storage = settings.head().place, Storage(settings.storage)
    order = storage.put_bytes(json.dumps({"version": versions(), "nonce": uuid.uuid4().hex}).encode())
    name = f"tunesmith-{home_id(home)}-inspect-{uuid.uuid4().hex[:8]}"
    launcher.start(name, guest_command(settings, "inspect", order))
    output = words(_until_ended(launcher, name, place))
    answer = json.loads(storage.get_bytes(returned(output, place)))
    ahead_s = answer["now"] - time.time()
    record = {"settings": settings.model_dump(), "at": time.time(), "answer": answer, "ahead_s": ahead_s}
    atomic_write(home / _SEEN, json.dumps(record), mode=0o600)  # the home is its user's alone
    return There.of(place, answer, ahead_s)


def _until_ended(launcher: RayLauncher, name: str, place: str) -> str:
    deadline = time.monotonic() + _WITHIN_S
    while launcher.alive(name):
        if time.monotonic() > deadline:
            launcher.stop(name)
            raise BadInput(f"{place} has not said in {_WITHIN_S:.0f} s what it has; `ray status` there shows why")
        time.sleep(_LOOK_S)  # a step there starts in seconds
    return launcher.log(name)


def guest_command(settings: RaySettings, what: str, order: str) -> list[str]:
    """The command of `guest` there."""
    program = [settings.python, "-P", "-m", "tunesmith.tools.pipeline.guest", what]
    return [*program, "--storage", settings.storage, "--order", order, "--folder", settings.folder]


@dataclass(frozen=True, slots=True)
class Words:
    """What `guest` said so far: of its own words the last of each kind, and the lines of the step's log."""

    last: Mapping[str, object]
    log: tuple[str, ...]


def words(text: str) -> Words:
    """The output of `guest`, taken apart."""
    last: dict[str, object] = {}
    lines = text.splitlines()
    for line in lines:
        if line.startswith(MARK):
            try:
                last |= json.loads(line.removeprefix(MARK))
            except ValueError:  # cut in the middle, as after a kill
                continue
    return Words(last, tuple(line for line in lines if not line.startswith(MARK)))


def returned(output: Words, place: str) -> str:
    """Under which digest the answer lies. Raises StepFailed with the reason where there is none."""
    if "returned" in output.last:
        return str(output.last["returned"])
    if "failed" in output.last:
        raise StepFailed(f"on {place}: {output.last['failed']}")
    # a line or two
    last = next((line.strip()[:300] for line in reversed(output.log) if line.strip()), "it said nothing")
    raise StepFailed(f"on {place} the step's process ended without a result: {last}")
