"""evaluate: the run's suite on an arm, compared case by case with the arm before it, nothing else changed.

`adapter` and `prompted` run beside `base` on ONE vLLM server, told apart by the request alone. Where vLLM refuses the
adapter, both arms run in one transformers process with the adapter switched on and off. `merged` and `quantized` are
hops of the lineage: their weights differ, and only those.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, ClassVar, Literal

from pydantic import Field, JsonValue

from tunesmith.memory.errors import BadInput
from tunesmith.memory.json_values import as_int, as_list, as_object
from tunesmith.memory.records import Artifact
from tunesmith.memory.store import Store
from tunesmith.tools.core.auto import LeftOut
from tunesmith.tools.core.estimate import estimate, lacks_memory, room
from tunesmith.tools.core.local_paths import BUNDLED_BEHAVIOUR, NO_PLACE, local_path
from tunesmith.tools.core.placed import PlacedRequest
from tunesmith.tools.core.rates import Seconds
from tunesmith.tools.core.stage import Facts, Inputs, Plan, Result, Stage, is_expected, pinned
from tunesmith.tools.data.behaviour import load_behaviour
from tunesmith.tools.evaluation.comparison import StoredComparison
from tunesmith.tools.evaluation.context import longest, prompt_tokens, refuse_longer
from tunesmith.tools.evaluation.judge import JUDGE_HELP, JUDGES, Models, asked_cases, coming_models, find_models
from tunesmith.tools.evaluation.lineage import own_base
from tunesmith.tools.evaluation.liveness import PROOF, proof_seconds
from tunesmith.tools.evaluation.pairing import Evaluations
from tunesmith.tools.evaluation.peoples_cases import LEARNED_RATE
from tunesmith.tools.evaluation.prompts import given, prompt_of
from tunesmith.tools.evaluation.protocol import IN_FLIGHT, THINKING, Key, Sampling
from tunesmith.tools.models.chat_template import NO_SYSTEM, takes_system
from tunesmith.tools.models.measuring import beside_base, measured_base
from tunesmith.tools.serving.budget import (
    bases_served,
    evaluation_seconds,
    lora_rank_served,
    measured_with,
    need_vllm,
    server_of,
    split_steps,
)
from tunesmith.tools.serving.context_settings import ContextSettings, context_settings_of
from tunesmith.tools.serving.spec import MAX_ANSWER_TOKENS
from tunesmith.tools.suites.case import Case, Suite
from tunesmith.tools.suites.loading import load_named_suites, read_suite, usual_suite

# Arm → the stage that makes what it serves.
_MAKERS = {"adapter": "train", "merged": "merge", "quantized": "quantize"}
_AS_BEFORE = LeftOut("as in the baseline")


class EvaluateRequest(PlacedRequest):
    """Which arm to hold against the base."""

    GONE: ClassVar = {"dev_rows": (20,), "peft_check": ("auto", "on", "off")}

    arm: Literal["prompted", "adapter", "merged", "quantized"] = "adapter"
    """What to evaluate; base answers again beside adapter and prompted."""
    system_prompt: Annotated[str, NO_PLACE] = ""
    """For the arm `prompted`: your own; empty: one made from the behaviour."""
    behaviour: Annotated[str, local_path(BUNDLED_BEHAVIOUR)] = ""
    """What `prompted` is made from; empty: the behaviour that the run's rows are of."""
    goal_rate: float = Field(default=LEARNED_RATE, gt=0, le=1)
    """Pass rate on the target at which a prompt makes training needless."""
    # 96: as the baseline has it
    max_tokens: Annotated[int, _AS_BEFORE] = Field(default=96, ge=1, le=MAX_ANSWER_TOKENS)
    """Tokens an answer may have."""
    temperature: Annotated[float, _AS_BEFORE] = Field(default=0.0, ge=0, le=2)
    """0: greedy."""
    repeats: Annotated[int, _AS_BEFORE] = Field(default=1, ge=1, le=100)
    """How often each case is asked."""
    # a shell allows 1,024 files
    concurrency: int = Field(default=IN_FLIGHT, ge=1, le=1024)
    """Requests in flight at once."""
    judge: Annotated[str, local_path(*JUDGES, maybe=True)] = Field(
        default="", description=f"{JUDGE_HELP} The baseline's own goes before both."
    )
    fresh: bool = False
    """Ask again what an earlier step of the run was answered to the same question."""


class EvaluateResult(Result):
    """Comparisons of this arm with those before it, in the shape that `tunesmith compare` prints."""

    artifact: str
    arm: str
    keys: dict[str, dict[str, JsonValue]]
    """Arm → the comparability key its outputs were made under."""
    comparisons: tuple[StoredComparison, ...]
    claim: str = ""
    """The verdict's word when the evaluation ended; empty for `prompted`."""
    claim_sentence: str = ""
    """The verdict with its reasons."""
    claim_rule: int = 1
    """Version of the rule that said it."""
    advice: str = ""
    """Of the arm `prompted`: whether a fine-tune is needed at all."""
    prompt: dict[str, JsonValue] = Field(default_factory=dict)
    """Of the arm `prompted`: what stood before every conversation."""
    proof: dict[str, JsonValue] = Field(default_factory=dict)
    """What makes the arms comparable: hashes before and after, engine, arguments, template, sampling, refusals."""
    taken_over: int = 0
    """Answers to unchanged questions that an earlier evaluation of the arm already had."""


@dataclass(frozen=True, slots=True)
class Prompted:
    """What the arm `prompted` is made from, where the request brings no prompt of its own."""

    behaviour: str = ""
    sha256: str = ""
    steps: tuple[str, ...] = ()
    """What a plan says of how the base takes a prompt."""

    @property
    def pins(self) -> dict[str, str]:
        """What a plan is bound to."""
        return {"behaviour": self.sha256} if self.sha256 else {}


@dataclass(frozen=True, slots=True)
class EvaluateContext:
    """What an evaluation asks, of whom, and how the base was asked."""

    suite: Suite | None
    """What the baseline asked; None before there is one."""
    models: Models = field(default_factory=Models)
    sampling: Mapping[str, object] = field(default_factory=dict)
    """The baseline's own, by the fields of its request."""
    base_asked: tuple[Key, ...] = ()
    """The sampling parts of the keys under which the base answered this suite."""
    base: Artifact | None = None
    """The base that the arm was made from; None: the run's."""
    prompted: Prompted = field(default_factory=Prompted)


def inspect_inputs(request: EvaluateRequest, inputs: Inputs) -> EvaluateContext:
    """Read the run's suite, who judges, the base that the arm was made from, and the behaviour of a prompt."""
    context = _of_baseline(request, inputs)
    if request.arm in _MAKERS and inputs.existing(request.arm):
        context = replace(context, base=own_base(inputs.store, inputs.run, request.arm))
    if request.arm == "prompted":
        prompt = given(request.system_prompt)
        if not request.system_prompt:
            name = request.behaviour or _behaviour_of(inputs)
            behaviour = load_behaviour(name)
            context, prompt = replace(context, prompted=Prompted(name, behaviour.sha256)), prompt_of(behaviour)
        base = inputs.existing("base")
        if base and not takes_system(base.path):
            context = replace(context, prompted=replace(context.prompted, steps=(NO_SYSTEM,)))
        _refuse_longer(request, inputs, context, prompt.preamble)
    return context


def _refuse_longer(
    request: EvaluateRequest, inputs: Inputs, context: EvaluateContext, before: Sequence[Mapping[str, object]]
) -> None:
    """Raises BadInput where a case and the prompt before it do not fit the run's context."""
    context_settings, base = context_settings_of(inputs.artifacts), inputs.existing("base")
    cases = asked_cases(context.suite, ("base", "prompted"))["prompted"] if context.suite else []
    asked = {"max_tokens": request.max_tokens} if "max_tokens" in request.model_fields_set else context.sampling
    tokens = int(str(asked.get("max_tokens", request.max_tokens)))
    need = longest(
        cases,
        lambda case: int(case.sampled("max_tokens", tokens)) + context_settings.thinking_tokens,
        base.path if base else None,
        before,
        enough=context_settings.context_tokens,
    )
    refuse_longer(need, context_settings.context_tokens)


def _of_baseline(request: EvaluateRequest, inputs: Inputs) -> EvaluateContext:
    """What the run's baseline fixed, or will fix."""
    baseline = inputs.artifacts.get("suite")
    if baseline is None:
        return EvaluateContext(None)
    if is_expected(baseline):
        asked = as_object(baseline.meta["request"])
        suite = load_named_suites([*map(str, as_list(asked["suites"]))], as_int(asked["cases_per_block"]))
        base_asked: tuple[Key, ...] = ()
    else:
        asked = inputs.store.step(baseline.step).request
        suite = read_suite(baseline.path)
        base_asked = tuple(_base_asked(inputs.store, inputs.run, suite.sha256))
    judge = request.judge or str(asked.get("judge", ""))
    models = find_models(suite.cases, judge, inputs.store.home, coming_models(inputs), request.on)
    return EvaluateContext(suite, models, sampling_of(asked), base_asked)


def sampling_of(baseline: Mapping[str, object]) -> dict[str, object]:
    """How a baseline drew its answers, by the fields of its request: an evaluation has the same unless told."""
    return {name: baseline[name] for name in ("max_tokens", "temperature", "repeats") if name in baseline}


def _base_asked(store: Store, run: str, suite_sha256: str) -> list[Key]:
    """The sampling parts of the keys under which the base answered this suite."""
    keys = [by_arm["base"] for by_arm in Evaluations.of(store, run).keys.values() if "base" in by_arm]
    names = ("sampling", "repeats", THINKING)
    return [{p: key[p] for p in names if p in key} for key in keys if key.get("suite") == suite_sha256]


def _behaviour_of(inputs: Inputs) -> str:
    """The behaviour that the run's rows are of, else the bundled one where its suites are asked. Raises BadInput."""
    rows, suite = inputs.artifacts.get("rows"), inputs.artifacts.get("suite")
    if rows is not None and is_expected(rows):
        return str(rows.meta["behaviour"])
    steps = inputs.store.steps(inputs.run) if inputs.run else []
    behaviours = [str(step.request["behaviour"]) for step in steps if step.stage == "generate"]
    asked = [suite for step in steps if step.stage == "baseline" for suite in as_list(step.request.get("suites", []))]
    asked += as_list(as_object(suite.meta["request"])["suites"]) if suite is not None and is_expected(suite) else []
    if not behaviours and BUNDLED_BEHAVIOUR not in asked:
        raise BadInput("evaluate: nothing says which behaviour to prompt for; set behaviour, or write a system_prompt")
    return behaviours[-1] if behaviours else BUNDLED_BEHAVIOUR


def plan(request: EvaluateRequest, facts: Facts, context: EvaluateContext) -> Plan:
    """Price the arm's cases, and the base's beside it where both share the server."""
    base, measured = context.base or facts.need("base", "base"), measured_base(facts)
    suite_artifact, suite = facts.need("suite", "baseline"), context.suite
    assert suite is not None, "it was inspected where there is one"
    need_vllm(facts)
    if request.arm != "prompted" and request.system_prompt:
        raise BadInput("evaluate: system_prompt belongs to arm=prompted")
    if request.arm == "prompted":
        request = request.model_copy(update={"behaviour": context.prompted.behaviour})
    models, context_settings = context.models, context_settings_of(facts.artifacts)
    if models.judge:
        request = request.model_copy(update={"judge": models.judge.named})
    artifact = facts.need(request.arm, _MAKERS[request.arm]) if request.arm in _MAKERS else None
    served = measured if request.arm in ("adapter", "prompted") or artifact is None else artifact
    both = served is measured
    request = _sampled_as_the_base(request, context, context_settings, beside=both)
    asked = _asked(suite, request.arm, beside=both)
    every = [case for cases in asked.values() for case in cases]
    judged = Seconds(answer=models.seconds(every, request.repeats))
    server = server_of(facts, served, context_settings.context_tokens, rank=lora_rank_served(artifact) if both else 0)
    peaks = models.peaks(server, on_gpu=facts.serves_on_gpu)
    proven = proof_seconds(facts, served) if request.arm == "adapter" else Seconds()
    seconds = _answering_seconds(request, facts, served, every, context_settings, judged, proven)
    price = estimate(
        "evaluate", facts, seconds=seconds, rates=facts.serving_rates, **peaks,
        # 8192: an answer, its grades with their reasons, and their place in the indexes.
        disk_bytes=8192 * len(every) * request.repeats, like=request.arm, cards=server.cards,
    )  # fmt: skip
    lacks = both and lacks_memory(price, facts.machine)
    fitting = bases_served(facts, context_tokens=context_settings.context_tokens) if lacks else ()
    return Plan(
        stage="evaluate",
        run=facts.run,
        arm=request.arm,
        summary=f"evaluate {request.arm} on the {len(asked[request.arm])} cases of the baseline",
        steps=(
            _served_by(request.arm, beside=both),
            *(measured_with(measured) if both else ()),
            *context_settings.steps,
            *split_steps(server.cards),
            *context.prompted.steps,
            *((PROOF,) if request.arm == "adapter" else ()),
            *models.steps(every, served.path),
            "exact McNemar on the target, a stated margin on the other blocks, a flip table per hop",
        ),
        request=request.model_dump(mode="json"),
        inputs=pinned(base=base, suite=suite_artifact, **_answering(request.arm, facts, artifact, measured)),
        pins={**models.pins, **context_settings.pins, **context.prompted.pins},
        estimate=price,
        writes=("every output, graded, in the store",),
        refusals=room(price, facts, remedy="a smaller base", fitting=fitting),
        fitting=fitting,
        notes=models.notes,
    )


def _answering_seconds(
    request: EvaluateRequest,
    facts: Facts,
    served: Artifact,
    cases: Sequence[Case],
    context_settings: ContextSettings,
    *besides: Seconds,
) -> Seconds:
    """To start a server and have every case answered; and what is read `besides`, which counts as so many answers as
    would take as long, since nothing reports on it."""
    answers = len(cases) * request.repeats
    asked = evaluation_seconds(
        facts, served, answers, request.max_tokens, context_settings=context_settings,
        prompt_tokens=prompt_tokens(cases),
    )  # fmt: skip
    together = sum(besides, asked)
    # where nothing is asked: no division by zero
    return replace(together, answers=answers * together.answer / max(asked.answer, 1e-9))


def _answering(arm: str, facts: Facts, artifact: Artifact | None, measured: Artifact) -> dict[str, Artifact]:
    """The inputs that answer beside the base's own: the arm's, and the quantized base where that answers for it."""
    beside = beside_base(facts.need("base", "base"), measured) if arm in ("adapter", "prompted") else {}
    return {**beside, **({arm: artifact} if artifact else {})}


def _asked(suite: Suite, arm: str, *, beside: bool) -> Mapping[str, list[Case]]:
    """The cases by arm. Raises BadInput where there is none for the one that is evaluated."""
    asked = asked_cases(suite, ("base", arm) if beside else (arm,))
    if not asked[arm]:
        raise BadInput(f"the suite asks nothing of {arm}: its providers name other arms; run a baseline anew")
    return asked


def _served_by(arm: str, *, beside: bool) -> str:
    if beside:
        return f"base and {arm} on one vLLM server, told apart by the request"
    return f"the {arm} model on a vLLM server with the same settings"


def _sampled_as_the_base(
    request: EvaluateRequest, context: EvaluateContext, context_settings: ContextSettings, *, beside: bool
) -> EvaluateRequest:
    """The request with the baseline's sampling where it says nothing of its own.

    Raises BadInput where the base does not answer `beside` the arm and never answered under what the request says.
    """
    baseline = context.sampling
    unset = {name: value for name, value in baseline.items() if name not in request.model_fields_set}
    request = request.model_copy(update=unset)
    asked = context.base_asked
    sampling = Sampling.on(context_settings, request.max_tokens, request.temperature, request.repeats)
    if beside or not asked or sampling.key in asked:
        return request
    differing = [name for name, value in baseline.items() if getattr(request, name) != value]
    settings = ", ".join(f"{name}={getattr(request, name)} against {baseline[name]}" for name in differing)
    raise BadInput(
        f"evaluate: {request.arm} could not be compared with the base, which was asked otherwise ({settings}); leave "
        f"out {' and '.join(differing)}, or run `tunesmith baseline` with the same"
    )


STAGE = Stage(
    "evaluate", EvaluateRequest, EvaluateResult, plan, inspect_inputs,
    usual_context=lambda facts: EvaluateContext(usual_suite()),
    settable=("arm",),
    identified_by=("arm",),
    works_on=lambda request: request.arm if request.arm in _MAKERS else "",
    without=lambda fields, kind: None if fields.get("arm", "adapter") == kind else fields,
    measures=("adapter", "merged", "quantized"),
    lasting=("max_tokens", "temperature", "repeats", "judge", "behaviour"),
    takes_from={"behaviour": "generate"},
)  # fmt: skip
