"""The contract every stage keeps: a frozen request, a pure plan with its price, a result.

`plan(request, facts)` reads nothing but its arguments: no disk, no clock, no network. What it returns is what the
user decides on, and its hash is what an approval is bound to.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Generic, NamedTuple, Self, TypeVar

from pydantic import BaseModel, ConfigDict, SkipValidation, ValidationError

from tunesmith.memory.errors import BadInput
from tunesmith.memory.records import Artifact, RunRule, Step
from tunesmith.memory.store import Store
from tunesmith.tools.core.local_paths import NO_PLACE
from tunesmith.tools.core.machine import Machine, chosen_gpu
from tunesmith.tools.core.pace import Past
from tunesmith.tools.core.rates import Rates, usual_card, usual_cpu

GIB = 1 << 30
CPU = "CPU"  # the processor, beside the names of GPUs
UNMEASURED = 1.1  # the margin of a card on which no training was measured yet
SERVING, TRAINING = "serving", "training"  # vLLM's environment, and the lab's


class Frozen(BaseModel):
    """Base of everything declared: frozen, no unknown field; what checks it is made late, as most is never read."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class Request(Frozen, use_attribute_docstrings=True):
    """What a stage is asked to do; exactly this is stored, and reproduces the step. Docstrings describe its fields."""

    run: Annotated[str, NO_PLACE] = ""
    """Run to work in, for example r3; empty: the newest one."""

    GONE: ClassVar[Mapping[str, tuple[object, ...]]] = {}
    """Fields of earlier versions, each with the values that ask for nothing which this version cannot do."""

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: object) -> None:
        """A description is one line, however its docstring is broken."""
        for info in cls.model_fields.values():
            info.description = info.description and " ".join(info.description.split())

    @classmethod
    def of(cls, stage: str, request: Mapping[str, object]) -> Self:
        """The request of a recorded step that is to be carried out. Raises BadInput for what this version cannot do."""
        now = {name: value for name, value in request.items() if value not in cls.GONE.get(name, ())}
        try:
            return cls.model_validate(now)
        except ValidationError as error:
            fault = error.errors()[0]
            what = ".".join(str(part) for part in fault["loc"])
            raise BadInput(
                f"an earlier version planned this {stage} with {what}={fault['input']!r}, which is gone; "
                f"plan it anew with `tunesmith {stage}`"
            ) from None


class Result(Frozen):
    """What a stage reports when it is done; numbers in it were measured."""

    @classmethod
    def of(cls, step: Step) -> Self | None:
        """What a step of the stage reported; None before it is done, and where another version wrote it otherwise."""
        known = {name: value for name, value in step.report.items() if name in cls.model_fields}
        try:
            return cls.model_validate(known) if step.report else None
        except ValidationError:  # another version wrote it otherwise
            return None


class Estimate(Frozen):
    """The price of a step. Bytes are peaks for memory and a sum for disk."""

    seconds: float
    basis: str
    """Why we think so: past runs of this step on this machine, or the calibration it comes from."""
    peak_ram_bytes: int = 0
    peak_vram_bytes: int = 0
    """Of each card."""
    cards: int = 1
    """GPUs that the step works on; of a training on the processor, processes that share its rows."""
    disk_bytes: int = 0
    calibrated_seconds: float = 0.0
    """The same before past runs on this machine corrected it."""
    fixed_seconds: float = 0.0
    """Of these, what starts: programs and libraries."""
    least_seconds: float = 0.0
    most_seconds: float = 0.0
    """Four of five steps like this take at least and at most so long; 0: nothing is known of that."""
    unmeasured: bool = False
    """Whether it rests on usual rates of such a device: this one was neither measured nor at work before."""
    rates_spread: float = 1.0
    """The factor by which the rates that its arithmetic used may be off; 1: they were measured."""
    parts: dict[str, float] = {}
    """Of `seconds`, kind of work → its share, in the order in which a step does them."""
    work: dict[str, float] = {}
    """The same of `calibrated_seconds`."""
    answers: float = 0.0
    """Of models, how many are asked for."""
    like: str = ""
    """The kind of work, where a stage does several that take their time differently."""

    @property
    def promised_seconds(self) -> float:
        """What a limit on hours is held against: where the device is not known yet, the lower end."""
        return self.least_seconds if self.unmeasured else self.seconds


_KNOWN_HOW_WELL = {"fixed_seconds", "least_seconds", "most_seconds", "unmeasured", "rates_spread"}
_NOT_AGREED_TO = {*_KNOWN_HOW_WELL, "parts", "work", "answers"}
"""Of an estimate, how well it is known and what it is made of: the price itself is agreed to."""


class Input(Frozen):
    """An artifact that a plan uses, pinned by digest: another one under the same name is another plan."""

    artifact: str
    sha256: str


class Fitting(Frozen):
    """Settings with which a step that lacks memory would fit, and its peak then."""

    settings: str
    """As they are typed: `micro_batch=2, load_in_4bit=true`; or another model, where no setting helps."""
    peak_bytes: int

    def __str__(self) -> str:
        return f"{self.settings} ({self.peak_bytes / GIB:.1f} GiB)"


class PlanQuestion(Frozen):
    """What is better asked than refused. Where nobody is asked the plan stands as it is."""

    text: str  # ends with a question mark; the answer is yes or no
    yes: dict[str, object]  # field → its value after a yes
    cautious: bool = False
    """Whether a yes can spoil nothing, so that `--yes` gives it too."""
    needs_person: bool = False
    """Whether the step waits for a person where nobody is there."""
    rows_of: str = ""  # the run whose rows may be marked first; then it is asked anew


class Plan(Frozen):
    """What will happen, what it costs and what it replaces; what the user says yes or no to."""

    stage: str
    run: str
    arm: str = ""
    on: str = ""
    """The other machine that carries it out, as it is told: its address and its card; empty: this one."""
    summary: str
    steps: tuple[str, ...]
    request: dict[str, object]
    inputs: dict[str, Input] = {}
    pins: dict[str, str] = {}
    """What was read for this plan and is read again at work, by what it is called: its whole sha256."""
    estimate: Estimate
    writes: tuple[str, ...] = ()
    replaces: tuple[str, ...] = ()
    refusals: tuple[SkipValidation[str], ...] = ()  # what is more than a text, as estimate's Lack, stays it
    """Why this cannot be done, each with the number and the next thing to try; empty for a plan that can run."""
    fitting: tuple[Fitting, ...] = ()
    """Where memory is lacking: what would fit, best first."""
    notes: tuple[str, ...] = ()
    """What the user should know beside it, such as the driver that is evicted, or a base that needs no training."""
    questions: tuple[PlanQuestion, ...] = ()
    """What a person is asked before the price."""
    reasons: dict[str, str] = {}
    """Field of the request → why it has its value, where the stage chose it and the user did not."""
    free_ram_bytes: int = 0
    free_vram_bytes: int = 0
    free_disk_bytes: int = 0

    def in_run(self, run: str) -> Plan:
        """The same plan for a run that was opened once its price was known."""
        return self.model_copy(update={"run": run, "request": {**self.request, "run": run}})

    @property
    def hash(self) -> str:
        """What an approval is bound to: everything but how much happens to be free right now, and why."""
        beside = ("notes", "questions", "reasons", "fitting", "free_ram_bytes", "free_vram_bytes", "free_disk_bytes")
        decided = self.model_dump(exclude={**dict.fromkeys(beside, True), "estimate": _NOT_AGREED_TO})
        for later in ("pins", "on"):  # a plan of before there were any keeps its hash
            decided = decided if decided[later] else {n: v for n, v in decided.items() if n != later}
        if self.estimate.cards == 1:
            del decided["estimate"]["cards"]
        if not self.on:
            decided["request"].pop("on", None)
        return hashlib.sha256(json.dumps(decided, sort_keys=True, default=str).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Facts:
    """All that a plan may know: the machine, the run's artifacts, and how long steps took here before."""

    home: Path
    machine: Machine
    run: str
    vllm: str | None = None
    vllm_from: str = ""  # where the vllm program was named, or why there is none
    cpu_builds: frozenset[str] = frozenset()
    """Which of SERVING and TRAINING have kernels for the CPU installed, so that they leave a GPU alone."""
    artifacts: Mapping[str, Artifact] = field(default_factory=dict)
    """Newest artifact of each kind in the run: base, teacher, rows, dataset, adapter, merged, quantized …"""
    past: tuple[Past, ...] = ()
    """The newest finished steps on this machine, the oldest first."""
    measured: Mapping[str, Rates] = field(default_factory=dict)
    """Device → what was measured of it: a GPU by its name, the processor as `CPU`."""
    there: str = ""  # the other machine that all this is of, as it is told; empty: this one
    notes: tuple[str, ...] = ()  # what should be known of it beside a price
    margin: float = 1.0  # what is reserved for a training on a card, in times of what arithmetic says that it needs
    served: frozenset[str] = frozenset()
    """Models that a measuring server has loaded already: by sha256, or by kind where they are not made yet."""
    here: bool = True
    """Whether the machine is there; one that is only asked about holds no model and no server, and nothing goes out."""

    @property
    def serves_on_gpu(self) -> bool:
        """Whether vLLM computes on a GPU here."""
        return bool(self.machine.gpus) and SERVING not in self.cpu_builds

    @property
    def trains_on_gpu(self) -> bool:
        """Whether the lab computes on a GPU here."""
        return bool(self.machine.gpus) and TRAINING not in self.cpu_builds

    @property
    def training_room_bytes(self) -> int:
        """Memory that a plan may count on where the lab computes: of the GPU, else RAM and swap."""
        return self.machine.vram_room_on(1) if self.trains_on_gpu else self.machine.memory_room_bytes

    @property
    def serving_room_bytes(self) -> int:
        """The same where vLLM computes."""
        return self.machine.vram_room_on(1) if self.serves_on_gpu else self.machine.memory_room_bytes

    @property
    def training_rates(self) -> Rates:
        """Of the device that the lab computes on."""
        return self._rates(on_gpu=self.trains_on_gpu)

    @property
    def serving_rates(self) -> Rates:
        """Of the device that vLLM computes on."""
        return self._rates(on_gpu=self.serves_on_gpu)

    @property
    def processor_rates(self) -> Rates:
        """Of the processor, for what is computed on it wherever the rest is."""
        return self._rates(on_gpu=False)

    def _rates(self, *, on_gpu: bool) -> Rates:
        card = chosen_gpu(self.machine.gpus) if on_gpu else None
        usual = usual_card() if card else usual_cpu(self.machine.cores, bf16_units=self.machine.bf16_units)
        rates = self.measured.get(card.name if card else CPU, usual)
        return rates if card else rates.shared(self.machine.share)

    def need(self, kind: str, maker: str) -> Artifact:
        """The run's newest artifact of a kind. Raises BadInput, naming the stage `maker` that makes one."""
        if kind not in self.artifacts:
            raise BadInput(f"run {self.run} has no {kind} yet; make one with `tunesmith {maker}` first")
        return self.artifacts[kind]


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a stage may inspect before it is planned: the records, and the newest artifact of each kind in its run.

    In a forecast an artifact may be one that only a step before it will make: `is_expected` tells.
    """

    store: Store
    run: str
    artifacts: Mapping[str, Artifact] = field(default_factory=dict)
    here: bool = True  # as of Facts

    def existing(self, kind: str) -> Artifact | None:
        """The artifact of a kind where it exists, so that it can be read."""
        artifact = self.artifacts.get(kind)
        return None if artifact is None or is_expected(artifact) else artifact


_EXPECTED = "expected"


def expected(kind: str, bytes_: int = 0, /, **meta: object) -> Artifact:
    """What a step should leave, for the forecast of those after it: a kind, a size, and what their plans read of it."""
    return Artifact(_EXPECTED, "", "", kind, Path(), "", bytes_, meta=meta)


def is_expected(artifact: Artifact) -> bool:
    """Whether an artifact is not there yet: it has no file and no digest."""
    return artifact.id == _EXPECTED


class Settled(NamedTuple):
    """Fields that were looked up before a step was priced, and what its user should hear of them."""

    fields: Mapping[str, object] = {}
    notes: tuple[str, ...] = ()


R = TypeVar("R", bound=Request)
C = TypeVar("C")


def _nothing(*known: object) -> Any:
    """For a stage whose plan needs nothing but its request and the facts: its context is None."""
    return None


@dataclass(frozen=True, slots=True)
class Stage(Generic[R, C]):
    """One declaration from which the tool, the slash command, the subcommand and the README row all come.

    It holds the stage's whole life outside the worker, so that nothing else needs to know a stage by name.
    """

    name: str
    request: type[R]
    result: type[Result]
    plan: Callable[[R, Facts, C], Plan]
    """Pure: prices the request by the facts and by what `inspect_inputs` found."""
    inspect_inputs: Callable[[R, Inputs], C] = _nothing
    """Reads (never writes) what a request names and what it works on: the plan's context. Raises BadInput."""
    expected_artifact: Callable[[R, Mapping[str, Artifact]], Artifact | None] = lambda request, artifacts: None
    """What the step should leave, by what the run holds or should hold then; None where that shows only afterwards."""
    foreseen: Callable[[R, C], Artifact | None] = _nothing
    """The same by what was inspected, where the request alone does not tell it."""
    check_before_start: Callable[[R, Inputs], None] = _nothing
    """What may have changed since a plan was made, asked once more before a step that waited or failed is started."""
    usual_context: Callable[[Facts], C] = _nothing
    """What `inspect_inputs` would find where nothing was made yet: the context for a model that nobody has fetched."""
    settle: Callable[[Mapping[str, object]], Settled] = lambda fields: Settled()
    """Looks up once, before any price, what fields leave to the network: a hub's newest commit. Raises BadInput."""
    settable: tuple[str, ...] = ()
    """Fields of its request that a conversation may set; the others keep their defaults there."""
    lasting: tuple[str, ...] = ()
    """Fields that a later step of the stage in the same run keeps where it is not asked for others."""
    takes_from: Mapping[str, str] = field(default_factory=dict)
    """Field → the stage whose newest step in the run gives it, where none of its own does."""
    follows: Mapping[str, str] = field(default_factory=dict)
    """Field → the field that says what its default means: where that is set anew, a default is not taken along."""
    belongs_to: Mapping[str, str] = field(default_factory=dict)
    """Field → the field without whose value its own means nothing: where that is set anew, it is not taken along."""
    headline: tuple[str, ...] = ()
    """Fields of its result that tell in one line what came of it."""
    meant_by: tuple[str, ...] = ()
    """Fields of several stages that mean this one where a user names none; those of no stage's are meant in all."""
    identified_by: tuple[str, ...] = ()
    """Fields that say which of the stage's several tasks a step is."""
    asks_hub: Callable[[Mapping[str, object]], bool] = lambda fields: False
    """Whether the worker of a step with these fields asks the hub; it waits for a yes though the stage is free."""
    run_rule: Callable[[R], RunRule] = lambda request: RunRule.NEWEST
    makes: Callable[[R], str] = lambda request: ""
    """The kind of artifact that this request leaves, where the stage makes several; empty: the catalogue's."""
    works_on: Callable[[R], str] = lambda request: ""
    """The kind of artifact that this request works on beside what the stage always needs; empty: none."""
    spares: Mapping[str, str] = field(default_factory=dict)
    """Field → the kind of artifact that the stage always needs, and does without where this is set."""
    works_on_newest: Callable[[R], bool] = lambda request: True
    """Whether its inputs are the run's newest, so that it is out of date once one of them is made anew."""
    without: Callable[[Mapping[str, object], str], Mapping[str, object] | None] = lambda fields, kind: fields
    """The fields of a planned step once nothing makes artifacts of `kind` any more; None: it has nothing left to do."""
    tries_settings_of: tuple[str, tuple[str, ...]] = ("", ())
    """A stage later in a plan, and the fields that this one takes over from there unless it has its own."""
    measures: tuple[str, ...] = ()
    """Kinds of artifact that it should measure once they are there, in the order in which they are made."""
    spends: bool = False
    """Whether it costs so much that what the baseline advises against is said on its plan."""
    needs_measured: bool = False
    """Whether it takes only what was measured since it was made."""
    replaces_deployed: bool = False
    """Whether what is served to users gives way to it."""
    usually_after: tuple[str, ...] = ()
    """Kinds of artifact without which it is possible, and not yet what comes next."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Environment its worker is started with."""

    def carried_over(self, before: Mapping[str, object], given: Mapping[str, object]) -> dict[str, object]:
        """Of an earlier request's fields, those that hold where others are said; see `follows` and `belongs_to`."""
        before = {name: value for name, value in before.items() if self.belongs_to.get(name) not in given}
        fresh = {name: self.request.model_fields[name].default for name, of in self.follows.items() if of in given}
        return {name: value for name, value in before.items() if name not in fresh or value != fresh[name]}


def pinned(**artifacts: Artifact | None) -> dict[str, Input]:
    """Inputs of a plan from the artifacts it uses; those that are None are left out."""
    return {name: Input(artifact=a.id, sha256=a.sha256) for name, a in artifacts.items() if a is not None}
