"""Who reads a user's words: a driver that is up, an endpoint of the settings, or a model that is started after a yes.

Asking a server that runs costs a few seconds and is part of the conversation. Starting one has a price like any step
has, and what has to be fetched for it is a step. Only who was asked, how often and for how long is recorded.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tunesmith.agent.commands.settings import Settings
from tunesmith.memory.errors import BadInput, StepFailed
from tunesmith.tools.core.estimate import estimate, held_now
from tunesmith.tools.core.stage import Plan
from tunesmith.tools.data.description import slug
from tunesmith.tools.data.proposal import Proposal
from tunesmith.tools.data.read_words import Ask, read
from tunesmith.tools.data.spec import Spec
from tunesmith.tools.data.verify import verified
from tunesmith.tools.data.writer_requests import prompt_text
from tunesmith.tools.models.memory_math import serving_peaks
from tunesmith.tools.models.model_names import shape_of
from tunesmith.tools.models.time_math import answering_seconds, server_start
from tunesmith.tools.pipeline import planning_facts
from tunesmith.tools.pipeline.ask_models import agreed_aside
from tunesmith.tools.pipeline.run_step import run_step
from tunesmith.tools.pipeline.workspace import Approver, StepRequest, Workspace
from tunesmith.tools.serving.client import ChatRequest, ChatResponse

if TYPE_CHECKING:
    from tunesmith.agent.driver.endpoint import Driver
    from tunesmith.tools.serving.endpoint import Endpoint

READ = "read"
"""What the price is of that starts a server for reading."""
_AT_ONCE = 8
"""Questions about one text: a CPU's server works on them side by side."""
NAME_WORDS, _NAME_TOKENS, _STEM, _EXAMPLE_CHARACTERS = 4, 16, 4, 300
"""Of a name for a behaviour; so many letters that one of its words shares with the user's, and shown of an example: a
small model reads the beginning as well."""
_QUESTIONS, _ANSWER_TOKENS, _PROMPT_TOKENS = 24, 60, 120
"""Of a reading: what each prompt has that no other begins with; counted over readings of the bundled driver."""


@dataclass(frozen=True, slots=True)
class Read:
    """A spec whose words were read, by whom, and what of the reading was left out."""

    spec: Spec
    by: str
    left_out: tuple[str, ...] = ()


def read_by(ws: Workspace, endpoint: Endpoint, spec: Spec, stated: Proposal) -> Read:
    """The spec as the model of an endpoint reads its words, held to its examples. Raises StepFailed for no answer."""
    began = time.monotonic()
    reading = read(spec, stated, ask_of(endpoint), endpoint.model)
    seconds = round(time.monotonic() - began, 1)
    ws.store.event("words.read", model=endpoint.model, questions=reading.questions, seconds=seconds)
    checked = verified(spec, reading.proposal)
    return Read(checked.spec, endpoint.model, tuple(dict.fromkeys((*reading.left_out, *checked.left_out))))


def named(spec: Spec, ask: Ask, model: str) -> Spec:
    """The spec under a short name that a model gives it; under its own where that is none, or not of the user's words.

    Raises StepFailed for no answer.
    """
    example = spec.examples[0]
    own_words = " ".join(
        (spec.say, spec.when, spec.what, *(f"{one.prompt} {one.answer}" for one in spec.examples))
    ).lower()
    page = prompt_text(
        "name-behaviour",
        when=spec.when,
        what=spec.what,
        prompt=example.prompt[:_EXAMPLE_CHARACTERS],
        answer=example.answer[:_EXAMPLE_CHARACTERS],
    )
    answers = ask([ChatRequest("name", model, [{"role": "user", "content": page}], _NAME_TOKENS, 0.0)])
    first = answers["name"].text.strip().split("\n")[0] if "name" in answers else ""
    name, words = slug(first), first.split()
    known = any(part[:_STEM] in own_words for part in name.split("-") if len(part) >= _STEM)
    return spec.model_copy(update={"name": name}) if known and len(words) <= NAME_WORDS else spec


def ask_of(endpoint: Endpoint) -> Ask:
    """Puts requests to an endpoint. Raises StepFailed where none of them is answered."""

    def ask(requests: Sequence[ChatRequest]) -> Mapping[str, ChatResponse]:
        answers, errors = dict[str, ChatResponse](), list[str]()

        async def all_of_them() -> None:
            async with endpoint.chat_client() as client:
                await client.complete_many(
                    requests,
                    concurrency=_AT_ONCE,
                    on_result=lambda one: errors.append(one.error) if one.error else answers.update({one.id: one}),
                )

        asyncio.run(all_of_them())
        if errors and not answers:
            raise StepFailed(f"{endpoint.model} answered none of {len(requests)} questions: {errors[0]}")
        return answers

    return ask


def ready(settings: Settings) -> Endpoint | None:
    """Where a model answers without anything being started: the driver, or the judge's endpoint; None where none does.

    Raises BadInput for an endpoint of the settings that cannot be used.
    """
    from tunesmith.agent.driver.endpoint import Driver
    from tunesmith.tools.evaluation.judge import find_judge
    from tunesmith.tools.serving.endpoint import Endpoint

    driver, judge = Driver(settings), settings.judge
    if settings.driver.endpoint or driver.served():
        return driver.ensure()
    if not judge.endpoint:
        return None
    judge_model = find_judge("endpoint", settings.home)
    return Endpoint(
        f"{judge_model.url}/v1", judge_model.name, judge_model.key, allow_plain_http=judge_model.allow_plain_http,
        home=settings.home, section="judge",
    )  # fmt: skip


def read_once_started(settings: Settings, ws: Workspace, approver: Approver, spec: Spec, stated: Proposal) -> Read:
    """As `read_by`, by the driver, which is fetched and started once somebody said yes to each price.

    Raises BadInput where it cannot be served here, ApprovalPending where nobody decided, StepFailed for a no.
    """
    from tunesmith.agent.driver.endpoint import Driver, DriverMissing

    if not settings.vllm:
        raise BadInput("no vLLM is here that could serve one; `tunesmith setup` installs it")
    with ExitStack() as ends:
        driver = Driver(settings)
        ends.callback(driver.end)  # the steps that follow want its memory, the writer's first
        try:
            driver.folder()
        except DriverMissing:
            run_step(ws, StepRequest("base", {"model": settings.driver.model, "role": "driver"}), approver).done()
        plan = price(driver, settings, ws)
        agreed_aside(ws, plan, approver)
        began = time.time()

        def waiting(seconds: float) -> None:
            ws.emit(
                "step.progress", stage=READ, step="", done=0, total=0, note="vLLM is starting", started_at=began,
                estimated_seconds=plan.estimate.seconds,
            )  # fmt: skip

        return read_by(ws, driver.ensure(waiting), spec, stated)


def price(driver: Driver, settings: Settings, ws: Workspace) -> Plan:
    """What it takes to start the driver and ask it about a user's words."""
    from tunesmith.tools.pipeline.driver_server import needed_memory

    folder = driver.folder()
    facts = planning_facts.gather(ws.store, "", vllm=ws.vllm, vllm_from=ws.vllm_from)
    weights = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    on_card = facts.serves_on_gpu
    seconds = server_start(weights, facts.serving_rates, on_card=on_card) + answering_seconds(
        shape_of(json.loads((folder / "config.json").read_text()), weights // 2),
        weights,
        facts.serving_rates,
        answers=_QUESTIONS,
        answer_tokens=_ANSWER_TOKENS,
        prompt_tokens=_PROMPT_TOKENS,
        at_once=_AT_ONCE,
        on_card=on_card,
    )
    peaks = serving_peaks(needed_memory(folder, settings.driver.context_tokens), on_gpu=on_card)
    cost = estimate(
        READ, facts, seconds=seconds, rates=facts.serving_rates, ram_bytes=peaks["ram_bytes"],
        vram_bytes=peaks["vram_bytes"],
    )  # fmt: skip
    machine = facts.machine
    return Plan(
        stage=READ,
        run="",
        summary=f"start {folder.name} to read the words of your behaviour, once",
        steps=(
            f"start vLLM for {folder.name} on the loopback address, with a random key",
            f"ask it up to {_QUESTIONS} short questions about your words; code holds every answer to your examples",
        ),
        request={},
        estimate=cost,
        writes=("an event in the records, no step; the server ends once your words are read",),
        refusals=held_now(cost, machine, remedy="a smaller [driver] model"),
        free_ram_bytes=machine.memory_free_bytes,
        free_vram_bytes=machine.vram_free_bytes,
        free_disk_bytes=machine.disk_free_bytes,
    )
