"""baseline: what the untouched base answers, case by case, before anything is trained. Everything compares to this."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

from pydantic import Field, JsonValue

from tunesmith.memory.errors import BadInput
from tunesmith.memory.records import Artifact
from tunesmith.tools.core.auto import AutoInt
from tunesmith.tools.core.estimate import estimate, lacks_memory, room
from tunesmith.tools.core.local_paths import BUNDLED_BEHAVIOUR, local_path
from tunesmith.tools.core.placed import PlacedRequest
from tunesmith.tools.core.rates import Seconds
from tunesmith.tools.core.stage import (
    Estimate,
    Facts,
    Fitting,
    Inputs,
    Plan,
    Result,
    Stage,
    expected,
    is_expected,
    pinned,
)
from tunesmith.tools.core.stats import detectable_text, guard_text
from tunesmith.tools.data.spec_suites import CASES
from tunesmith.tools.evaluation.context import Need, choose_context, longest, prompt_tokens
from tunesmith.tools.evaluation.judge import JUDGE_HELP, JUDGES, Models, asked_cases, coming_models, find_models
from tunesmith.tools.evaluation.protocol import IN_FLIGHT
from tunesmith.tools.evaluation.statistics import MARGIN
from tunesmith.tools.evaluation.unread import warnings_before
from tunesmith.tools.models.chat_template import (
    NO_SYSTEM,
    Thoughts,
    has_system,
    takes_system,
    takes_tools,
    thoughts_of,
    thoughts_recorded,
)
from tunesmith.tools.models.measuring import beside_base, measured_base
from tunesmith.tools.models.memory_math import CONTEXT_TOKENS
from tunesmith.tools.serving.budget import (
    bases_served,
    evaluation_seconds,
    measured_with,
    need_vllm,
    one_box,
    serving_cards,
    serving_memory,
    shorter_context,
    split_steps,
)
from tunesmith.tools.serving.context_settings import (
    THINKING_TOKENS,
    AskedThinking,
    ContextSettings,
    Thinking,
    choose_context_settings,
    positions_of,
)
from tunesmith.tools.serving.spec import MAX_ANSWER_TOKENS
from tunesmith.tools.suites.case import GUARDED_BLOCKS, PRIMARY_BLOCK, Case, Suite
from tunesmith.tools.suites.loading import BUNDLED, SuiteName, load_named_suites, usual_suite


class BaselineRequest(PlacedRequest):
    """Which suites to run on the base."""

    suites: tuple[SuiteName, ...] = Field(
        default=(BUNDLED_BEHAVIOUR,),
        min_length=1,
        description=f"promptfoo-format files, '{BUNDLED_BEHAVIOUR}' for the bundled behaviour's own, or "
        f"{' and '.join(BUNDLED)}.",
    )
    held_out: bool = False
    """Ask too what critique held out of the run's rows: cases whose answers are known."""
    cases_per_block: int = Field(default=0, ge=0)
    """At most this many cases of each block; 0: all."""
    # 96: ordinary blocks answer in sentences; a behaviour's own plan gives more where its answers need it.
    max_tokens: int = Field(default=96, ge=1, le=MAX_ANSWER_TOKENS)
    """Tokens an answer may have."""
    temperature: float = Field(default=0.0, ge=0, le=2)
    """0: greedy; above it, set repeats too."""
    repeats: int = Field(default=1, ge=1, le=100)
    """How often each case is asked; a seed for each time."""
    context_tokens: AutoInt = Field(default=0, ge=0)
    """Tokens a conversation may have in this run, answer included; auto: 2048, or as many as the longest case needs."""
    thinking: AskedThinking = "auto"
    """Whether the run's models think before they answer; auto: no, where the template can leave it out."""
    thinking_tokens: int = Field(default=THINKING_TOKENS, ge=1)
    """Tokens a thought may have beside the answer, where models think."""
    cards: AutoInt = Field(default=0, ge=0)
    """GPUs that vLLM splits the model over; auto: the fewest that it fits on, for all arms of the run."""
    # a shell allows 1,024 files
    concurrency: int = Field(default=IN_FLIGHT, ge=1, le=1024)
    """Requests in flight at once."""
    judge: Annotated[str, local_path(*JUDGES, maybe=True)] = Field(default="", description=JUDGE_HELP)
    fresh: bool = False
    """Ask again what an earlier step of the run was answered to the same question."""


class BlockResult(Result):
    """Pass counts of one block of cases."""

    cases: int
    passed: int
    errors: int


class BaselineResult(Result):
    """The base's pass rates, and the suite that all later arms are held to."""

    artifact: str
    suite_sha256: str
    blocks: dict[str, BlockResult]
    key: dict[str, JsonValue]
    """The comparability key that these outputs were made under."""
    advice: str = ""
    """What speaks against training: too few cases to win, or a goal that is reached already."""
    takes_tools: bool = True
    """False where the base's chat template leaves out the tools that cases offer."""
    taken_over: int = 0
    """Answers to unchanged cases that an earlier baseline of the run already had."""


@dataclass(frozen=True, slots=True)
class BaselineContext:
    """What a baseline asks, and of whom."""

    suite: Suite
    models: Models = field(default_factory=Models)
    takes_tools: bool = True
    """Whether the base's chat template shows the tools that cases offer."""
    takes_system: bool = True
    """Whether it takes system messages."""
    context_settings: ContextSettings = field(default_factory=ContextSettings)
    """How the run's models are asked from now on."""
    need: Need = field(default_factory=Need)
    """What the longest case takes."""


def inspect_inputs(request: BaselineRequest, inputs: Inputs) -> BaselineContext:
    """Parse the suites and find who judges, so that what cannot be done is refused before anything starts."""
    dataset = inputs.existing("dataset")
    suite = load_named_suites(suites_of(request, dataset.path if dataset else None), request.cases_per_block)
    cases = asked_cases(suite, ("base",))["base"]
    if not cases:
        raise BadInput("the suites ask nothing of the base; name base among the providers, or leave them out")
    base = inputs.existing("base")
    models = find_models(suite.cases, request.judge, inputs.store.home, coming_models(inputs), request.on)
    context_settings, need = _engine(request, suite.cases, inputs.artifacts.get("base"))
    tools, system = (base is None or takes(base.path) for takes in (takes_tools, takes_system))
    return BaselineContext(suite, models, tools, system, context_settings, need)


def _engine(request: BaselineRequest, cases: Sequence[Case], base: Artifact | None) -> tuple[ContextSettings, Need]:
    """How the base, and every later arm, is asked its cases. Raises BadInput where it cannot be done."""
    folder = None if base is None or is_expected(base) else base.path
    context_settings = choose_context_settings(_thoughts(base), request.thinking, tokens=request.thinking_tokens)
    most = positions_of(base.known_config) if base else 0
    need = longest(
        cases,
        lambda case: int(case.sampled("max_tokens", request.max_tokens)) + context_settings.thinking_tokens,
        folder,
        enough=request.context_tokens or min(CONTEXT_TOKENS, most or CONTEXT_TOKENS),
    )
    return replace(context_settings, context_tokens=choose_context(need, request.context_tokens, most)), need


def _thoughts(base: Artifact | None) -> Thoughts:
    """How the base thinks, by its template where that is there."""
    if base is not None and not is_expected(base):
        return thoughts_of(base.path)
    return thoughts_recorded(base.meta) if base else ""


def suites_of(request: BaselineRequest, dataset: Path | None) -> tuple[str, ...]:
    """The suites of a request, with what was held out of the dataset that lies in a folder."""
    held_out = sorted((dataset / CASES).glob("*.yaml")) if request.held_out and dataset else []
    return (*request.suites, *map(str, held_out))


def expected_artifact(request: BaselineRequest, artifacts: Mapping[str, Artifact]) -> Artifact:
    """The suite that was run, to be read from where it is now."""
    context, thoughts = request.context_tokens or CONTEXT_TOKENS, _thoughts(artifacts.get("base"))
    context_settings = choose_context_settings(
        thoughts, request.thinking, tokens=request.thinking_tokens, context=context
    )
    return expected("suite", 0, cases=0, request=request.model_dump(mode="json"), **context_settings.recorded)


def requested_settings(request: BaselineRequest) -> ContextSettings:
    """How a planned baseline asks; a plan of before there was a choice leaves all of it as it was."""
    thinking: Thinking = "" if request.thinking == "auto" else request.thinking
    tokens = request.thinking_tokens if thinking == "on" else 0
    return ContextSettings(request.context_tokens or CONTEXT_TOKENS, thinking, tokens, request.cards or 1)


def plan(request: BaselineRequest, facts: Facts, context: BaselineContext) -> Plan:
    """Price every case once on the base, and say what so many cases can show at all."""
    base, suite, models = facts.need("base", "base"), context.suite, context.models
    measured, asked = measured_base(facts), request
    anew = replace(facts, artifacts={kind: one for kind, one in facts.artifacts.items() if kind != "suite"})
    cards = serving_cards(anew, measured, context.context_settings.context_tokens, asked=request.cards)
    context_settings = replace(context.context_settings, cards=cards)
    dataset = facts.need("dataset", "critique") if request.held_out else None
    need_vllm(facts)
    cases = asked_cases(suite, ("base",))["base"]
    blocks: Counter[str] = Counter(case.block for case in cases)
    if models.judge:
        request = request.model_copy(update={"judge": models.judge.named})
    request = request.model_copy(update=_decided(request, context_settings))
    rows = {block: [case.cluster for case in cases if case.block == block] for block in blocks}
    price, fitting = _price(request, facts, measured, cases, replace(context, context_settings=context_settings))
    can_show = _can_show(rows)
    how = "greedy" if request.temperature == 0 else f"at temperature {request.temperature:g}"
    how += f", {request.repeats} times each, reduced to one verdict a case" if request.repeats > 1 else ""
    waiting = len(suite.cases) - len(cases)
    return Plan(
        stage="baseline",
        run=facts.run,
        arm="base",
        summary=f"run {len(cases)} cases on the untouched base",
        steps=(
            "start vLLM with the base, adapters allowed but none loaded",
            *measured_with(measured),
            *context_settings.steps,
            *split_steps(cards),
            f"{', '.join(f'{count} {block}' for block, count in blocks.items())} cases "
            f"(suite sha256 {suite.sha256[:12]}), {how}",
            *models.steps(cases, base.path),
            *_of_template(context, cases),
            *([f"{waiting} more wait for another arm, or for a second one beside"] if waiting else []),
            *can_show,
        ),
        request=request.model_dump(mode="json"),
        inputs=pinned(base=base, dataset=dataset, **beside_base(base, measured)),
        pins={"suite": suite.sha256, **models.pins},
        estimate=price,
        writes=("every output, graded, in the store",),
        replaces=("the baseline of this run",) if "suite" in facts.artifacts else (),
        refusals=(
            *room(price, facts, remedy="a smaller base", fitting=fitting),
            *one_box(price, facts.machine, fitting),
        ),
        fitting=fitting,
        notes=(*warnings_before(suite, "base"), *models.notes),
        reasons=_reasons(asked, context),
    )


def _of_template(context: BaselineContext, cases: Sequence[Case]) -> list[str]:
    """What the base's chat template does not take as the cases have it."""
    blind = 0 if context.takes_tools else sum(bool(case.tools) for case in cases)
    lines = (
        [f"the base's chat template ignores tools: {blind} cases offer some that it will never see"] if blind else []
    )
    refused = not context.takes_system and any(has_system(case.messages) for case in cases)
    return [*lines, *([NO_SYSTEM] if refused else [])]


def _price(
    request: BaselineRequest, facts: Facts, measured: Artifact, cases: Sequence[Case], context: BaselineContext
) -> tuple[Estimate, tuple[Fitting, ...]]:
    """Of every case once; and where memory is lacking, what would fit: a shorter context, else another base."""
    models, context_settings, answers = context.models, context.context_settings, len(cases) * request.repeats
    server = serving_memory(measured, context_settings.context_tokens, cards=context_settings.cards)
    seconds = evaluation_seconds(
        facts, measured, answers, request.max_tokens, context_settings=context_settings,
        prompt_tokens=prompt_tokens(cases),
    )  # fmt: skip
    price = estimate(
        "baseline", facts, seconds=seconds + Seconds(answer=models.seconds(cases, request.repeats)),
        rates=facts.serving_rates, like="", **models.peaks(server, on_gpu=facts.serves_on_gpu), cards=server.cards,
        disk_bytes=8192 * answers,  # the answer, its grades with their reasons, and their place in the indexes
    )  # fmt: skip
    if not lacks_memory(price, facts.machine):
        return price, ()
    shorter = shorter_context(facts, measured, context_settings.context_tokens, least=CONTEXT_TOKENS)
    return price, (*shorter, *bases_served(facts, context_tokens=context_settings.context_tokens))


def _decided(request: BaselineRequest, context_settings: ContextSettings) -> dict[str, object]:
    """The fields of the request that say how the run is asked, where that is not usual."""
    context = (
        {"context_tokens": context_settings.context_tokens} if context_settings.context_tokens != CONTEXT_TOKENS else {}
    )
    cards = {"cards": context_settings.cards} if context_settings.cards > 1 else {}
    return {**context, **cards, **({"thinking": context_settings.thinking} if context_settings.thinking else {})}


def _reasons(asked: BaselineRequest, context: BaselineContext) -> dict[str, str]:
    """Why the run is asked as it is, where the user did not say."""
    context_settings, need, reasons = context.context_settings, context.need, {}
    if not asked.context_tokens and context_settings.context_tokens != CONTEXT_TOKENS:
        reasons["context_tokens"] = (
            f"case {need.case_id} needs up to {need.tokens} tokens, {need.answer_tokens} of them for its answer"
            if context_settings.context_tokens > CONTEXT_TOKENS
            else "the model takes no more"
        )
    if asked.thinking == "auto" and context_settings.thinking == "off":
        reasons["thinking"] = "the chat template can leave thoughts out, and a base that is cut off in them fails"
    if asked.thinking == "auto" and context_settings.thinking == "on":
        reasons["thinking"] = "the chat template has the model think always"
    return reasons


def _can_show(rows: Mapping[str, Sequence[str]]) -> list[str]:
    """What the cases of each block can show, by the seed rows that they were made from."""
    target = rows.get(PRIMARY_BLOCK, ())
    lines = [f"{detectable_text(len(target), clusters=target)} on the target"] if target else []
    guarded = {block: rows[block] for block in GUARDED_BLOCKS if block in rows}
    return lines + [f"{block}: {guard_text(len(of), MARGIN, clusters=of)}" for block, of in guarded.items()]


STAGE = Stage(
    "baseline", BaselineRequest, BaselineResult, plan, inspect_inputs, expected_artifact,
    usual_context=lambda facts: BaselineContext(usual_suite()),
    settable=("cases_per_block",),
    lasting=(
        "suites", "cases_per_block", "max_tokens", "temperature", "repeats", "judge", "context_tokens", "thinking",
        "thinking_tokens",
    ),
    takes_from={"suites": "critique"},
)  # fmt: skip
