"""Ask models questions: by the servers that run, else priced, agreed to, and started for it. No step, only events.

What is recorded is who was asked, for how long, and how many characters went and came; never a word of either.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial

from tunesmith.memory.digests import Digests
from tunesmith.memory.errors import BadInput, Declined, StepFailed
from tunesmith.memory.files import verify
from tunesmith.memory.locks import is_locked
from tunesmith.memory.records import RUNNING
from tunesmith.memory.store import Store
from tunesmith.tools.core.stage import Plan
from tunesmith.tools.evaluation.ask import (
    ASK,
    STAYS_MINUTES,
    Answering,
    ToServe,
    answering,
    plan,
    run_to_ask,
    sampling_of_run,
)
from tunesmith.tools.evaluation.ask_message import NO_FRAME, Frame, frame_of_run, refuse_too_long
from tunesmith.tools.evaluation.asking import refuses_adapters
from tunesmith.tools.machine.gpus import measure_gpus
from tunesmith.tools.machine.measure import measure_machine
from tunesmith.tools.pipeline import driver_eviction, launcher, planning_facts
from tunesmith.tools.pipeline.tenancy import MACHINE_LOCK, tenancy
from tunesmith.tools.pipeline.workspace import Approver, Workspace
from tunesmith.tools.serving import servers
from tunesmith.tools.serving.client import ChatRequest, ChatResponse
from tunesmith.tools.serving.eviction import without
from tunesmith.tools.serving.requests import chat_client
from tunesmith.tools.serving.servers import Server
from tunesmith.tools.serving.thoughts import without_thought

LEASE_S = STAYS_MINUTES * 60.0  # a start takes a minute or more: it stays for the next question
_AT_ONCE = 8
"""Questions that a server works on side by side: nobody's terminal shows more."""


@dataclass(frozen=True, slots=True)
class Question:
    """A message for the models of a run."""

    text: str
    run: str = ""
    """Empty: the newest that made a model."""
    arms: tuple[str, ...] = ()
    """Empty: the base, and what is deployed or was made last."""
    as_is: bool = False
    """Whether only the words are asked, without what the run puts around a message."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What one arm said; with an `error`, nothing."""

    arm: str
    artifact: str
    text: str
    seconds: float
    tokens: int = 0
    cut_at_tokens: int = 0
    """Where the answer used up the tokens that it may have: how many; else 0."""
    error: str = ""


@dataclass(frozen=True, slots=True)
class Answered:
    """The answers to a question, in the order of the arms."""

    run: str
    answers: tuple[Answer, ...]
    frame: Frame = NO_FRAME
    """What was put around the words."""
    started: int = 0
    """Servers that were started for it."""


Conversation = list[dict[str, object]]
Conversations = Mapping[str, Mapping[str, Conversation]]
"""Arm → what it is asked, by a name for each conversation."""


@dataclass(slots=True)
class _Asking:
    """Questions on their way to their answers."""

    ws: Workspace
    run: str
    who: Sequence[Answering]
    asked: Conversations
    take: Callable[[str, Answer], None]
    """Gets the name of a conversation and an answer to it, as it arrives."""
    tokens: int = 0
    """That the longest conversation takes, answer included."""
    answered: set[str] = field(default_factory=set)
    """Arms that were asked all that they are to be asked."""
    began: float = field(default_factory=time.time)
    estimated_s: float = 0.0

    @property
    def store(self) -> Store:
        return self.ws.store

    def running(self, *, machine_is_ours: bool) -> dict[str, Server]:
        """Arm → the healthy server that answers for it: a deployed one first, a measuring one only where no step works,
        since an answer beside those of an evaluation might change these."""
        listed = servers.list_servers(self.store.home)
        usable = [one for one in listed if machine_is_ours or one.role == servers.DEPLOYED]
        usable.sort(key=lambda one: one.role != servers.DEPLOYED)  # what users get goes first
        fitting = {one.arm: [s for s in usable if one.answered_by(s, self.tokens)] for one in self.who}
        healthy = {s.id for s in usable if any(s in some for some in fitting.values()) and servers.healthy(s)}
        chosen = {arm: next((s for s in some if s.id in healthy), None) for arm, some in fitting.items()}
        return {arm: server for arm, server in chosen.items() if server}

    def to_serve(self, running: dict[str, Server]) -> ToServe:
        """What is lacking: a server for each arm that has none, one for a base and its adapter."""
        lacking = [one for one in self.who if one.arm not in running]
        by_server = {one.spec.hash: one for one in sorted(lacking, key=lambda one: one.adapter is not None)}
        home, used = self.store.home, {server.id for server in running.values()}
        measuring, driver = (servers.list_servers(home, role=role) for role in (servers.BENCH, servers.DRIVER))
        idle = tuple(server for server in measuring if server.id not in used)
        machine = measure_machine(home)
        return ToServe(
            arms=tuple(one.arm for one in self.who),
            start=tuple(by_server.values()),
            machine=without(machine, [*idle, *driver]),
            alone=without(machine, [*measuring, *driver]),
            deployed=tuple(servers.deployed(home)),
            stops=idle,
            questions=max(map(len, self.asked.values())),
            answer_tokens=max(sampling_of_run(self.store, self.run, one.arm).max_tokens for one in self.who),
        )


def ask_models(ws: Workspace, question: Question, approver: Approver) -> Answered:
    """The answers to a question. Raises as `ask_each` does, and NotFound."""
    run = run_to_ask(ws.store, question.run)
    who = answering(ws.store, run, question.arms, ws.vllm)
    frame = NO_FRAME if question.as_is else frame_of_run(ws.store, run)
    asked, answers = frame.messages(question.text), dict[str, Answer]()
    started = ask_each(
        ws, run, who, {one.arm: {"": asked} for one in who}, approver, lambda _, a: answers.update({a.arm: a})
    )
    summaries = [
        {"arm": a.arm, "artifact": a.artifact, "seconds": round(a.seconds, 3), "characters": len(a.text)}
        for one in who
        for a in [answers[one.arm]]
    ]
    # How much, never what: a person's message stays out of the record.
    ws.store.event("asked", run=run, characters=len(question.text), answers=summaries)
    return Answered(run, tuple(answers[one.arm] for one in who), frame, started)


def ask_each(
    ws: Workspace,
    run: str,
    who: Sequence[Answering],
    asked: Conversations,
    approver: Approver,
    take: Callable[[str, Answer], None],
) -> int:
    """Ask each arm its conversations and hand every answer on as it arrives; how many servers were started for that.

    Raises BadInput before anything is started, ApprovalPending where nobody decided, StepFailed for a no, and where a
    server does not start.
    """
    asking = _Asking(ws, run, who, asked, take)
    for one in who:
        for conversation in asked[one.arm].values():
            asking.tokens = max(asking.tokens, conversation_tokens(ws.store, run, one, conversation))
    running = asking.running(machine_is_ours=not is_locked(ws.store.home / MACHINE_LOCK))
    to_serve = asking.to_serve(running)
    agreed = None
    if to_serve.start:
        _refuse_while_at_work(asking, running)
        agreed = _agreed(asking, to_serve, approver)
    alone = all(server.role == servers.DEPLOYED for server in running.values()) and not to_serve.start
    with nullcontext() if alone else _machine(asking, to_serve.cards):
        _answer_all(asking, running, to_serve, agreed)
    return len(to_serve.start)


def conversation_tokens(store: Store, run: str, one: Answering, conversation: Conversation) -> int:
    """Tokens in which a conversation with an arm certainly fits. Raises BadInput where the context does not hold it."""
    sampling = sampling_of_run(store, run, one.arm)
    need = refuse_too_long(
        conversation,
        answer_tokens=sampling.max_tokens + sampling.thinking_tokens,
        context_tokens=one.spec.max_model_len_tokens,
        tokenizer_dir=one.served.path,
    )
    return need.tokens


# Whether it may begin


def _refuse_while_at_work(asking: _Asking, running: dict[str, Server]) -> None:
    """Raises BadInput while a step has the machine: one accelerator, one tenant at a time."""
    if is_locked(asking.store.home / MACHINE_LOCK):
        raise _at_work(asking, running)


def _at_work(asking: _Asking, running: dict[str, Server]) -> BadInput:
    running_here = [step for step in asking.store.steps(status=RUNNING) if not step.on]
    at_work = [step for step in running_here if launcher.is_alive(asking.store, step)]
    who = f"{at_work[0].stage} ({at_work[0].id})" if at_work else "another question, or a step that is ending,"
    follow = f"; `tunesmith jobs attach {at_work[0].id}` follows it" if at_work else ""
    served = [arm for arm, server in running.items() if server.role == servers.DEPLOYED]
    instead = f", or ask what is served meanwhile: --arms {','.join(served)}" if served else ""
    return BadInput(f"{who} has the machine now; ask again once it has ended{instead}{follow}")


def _machine(asking: _Asking, cards: int) -> AbstractContextManager[None]:
    """Hold the machine while servers are started and asked. Raises BadInput where somebody else has it."""

    def refuse(what: str) -> None:
        raise _at_work(asking, {}) if "another step" in what else BadInput(f"the GPU is taken: {what}; ask again later")

    return tenancy(asking.store.home, ASK, measure_gpus(), cards=cards, waiting=refuse, log=lambda text: None)


def _agreed(asking: _Asking, to_serve: ToServe, approver: Approver) -> Plan:
    """The price of what has to be started, once somebody said yes. Raises BadInput where it does not fit."""
    ws, run = asking.ws, asking.run
    facts = planning_facts.gather(ws.store, run, vllm=ws.vllm, vllm_from=ws.vllm_from, machine=to_serve.machine)
    priced = plan(to_serve, facts)
    if driver_eviction.in_the_way(ws.store.home, priced.estimate):
        priced = priced.model_copy(update={"notes": (driver_eviction.EVICTED,)})
    return agreed_aside(ws, priced, approver)


def agreed_aside(ws: Workspace, priced: Plan, approver: Approver) -> Plan:
    """The price of something that is no step, once somebody said yes; only events record it.

    Raises BadInput where it cannot be done, ApprovalPending where nobody decided, Declined for a no.
    """
    if priced.refusals:
        raise BadInput(f"{priced.stage}: {'; '.join(priced.refusals)}")
    stage, run, seconds = priced.stage, priced.run, priced.estimate.seconds
    ws.store.event(
        f"{stage}.priced", run=run or None, plan_hash=priced.hash, seconds=seconds,
        arms=list(filter(None, priced.arm.split(","))),
    )  # fmt: skip
    ws.emit("plan.shown", run=run, stage=stage, plan_hash=priced.hash, plan=priced)
    ws.emit("approval.required", run=run, stage=stage, plan_hash=priced.hash, estimated_seconds=seconds)
    decision = approver(priced, "")
    word = "yes" if decision.yes else "no"
    ws.store.event(
        "approval.decided", run=run or None, stage=stage, plan_hash=priced.hash, decision=word, by=decision.by,
        reason=decision.reason,
    )  # fmt: skip
    ws.emit("approval.decided", stage=stage, decision=word, by=decision.by, reason=decision.reason)
    if not decision.yes:
        raise Declined(f"nothing was started: {decision.reason or 'the answer was no'}")
    return priced


# Served and asked


def _answer_all(asking: _Asking, running: dict[str, Server], to_serve: ToServe, agreed: Plan | None) -> None:
    """Ask every arm, one after the other: those first whose servers run, then those of each server that is started."""
    for one in asking.who:
        if one.arm in running:
            _put(asking, one, running[one.arm])
    if agreed is None:
        return
    if driver_eviction.evict_driver(asking.store.home, agreed.estimate):
        asking.ws.emit("driver.gave_way", text=driver_eviction.EVICTED)
    beside, asking.began, asking.estimated_s = to_serve.side_by_side, time.time(), agreed.estimate.seconds
    started: set[str] = set()
    for one in to_serve.start:
        spared = started | {server.id for server in running.values()} if beside else set()
        for server in servers.list_servers(asking.store.home, role=servers.BENCH):
            if server.id not in spared:
                servers.stop(server)
        server = _start(asking, one)
        started.add(server.id)
        for other in asking.who:
            if other.arm not in asking.answered and other.spec == one.spec:
                _put(asking, other, server)


def _start(asking: _Asking, one: Answering) -> Server:
    """A server for an arm, started now, its files verified. Raises StepFailed."""
    ws, began = asking.ws, time.monotonic()
    assert ws.vllm is not None, "the plan needs it"
    for artifact in {one.served.id: one.served, one.artifact.id: one.artifact}.values():
        verify(artifact.path, artifact.sha256, sha256_of=Digests(ws.store.home).sha256)

    start = partial(
        servers.start, ws.store.home, vllm=ws.vllm, log_path=ws.store.home / "logs" / "ask.log", owner=ASK,
        lease_s=LEASE_S, on_wait=lambda _: _progress(asking, f"vLLM is starting for {one.arm}"),
    )  # fmt: skip
    try:
        server = start(one.spec)
    except StepFailed as error:
        if one.arm != "base" or not refuses_adapters(error):
            raise _plainer(error, one) from error
        server = start(one.spec.model_copy(update={"max_lora_rank": 0}))  # as its baseline does
    ws.store.event(
        "server.started", run=asking.run, server=server.id, arm=one.arm, artifact=one.artifact.id,
        seconds=round(time.monotonic() - began, 1), lease_seconds=LEASE_S,
    )  # fmt: skip
    return server


def _progress(asking: _Asking, note: str, done: int = 0, total: int = 0) -> None:
    asking.ws.emit(
        "step.progress", stage=ASK, step="", done=done, total=total, note=note, started_at=asking.began,
        estimated_seconds=asking.estimated_s,
    )  # fmt: skip


def _plainer(error: StepFailed, one: Answering) -> StepFailed:
    """An error of a server that takes no adapters, with what works instead."""
    if not one.spec.max_lora_rank or not refuses_adapters(error):
        return error
    return StepFailed(
        f"vLLM does not serve adapters of this base: {error}; a merged model can be asked: `tunesmith merge`, then "
        "--arms merged"
    )


def _put(asking: _Asking, one: Answering, server: Server) -> None:
    """Ask one arm of its server, whose lease begins anew with the answers."""
    if one.adapter:
        try:
            servers.load_adapter(server, one.model, one.adapter.path)
        except StepFailed as error:
            raise _plainer(error, one) from error
    sampling = sampling_of_run(asking.store, asking.run, one.arm)
    requests = [
        ChatRequest(
            name,
            server.spec.served_name if not one.adapter else one.model,
            conversation,
            max_tokens=sampling.max_tokens + sampling.thinking_tokens,
            temperature=sampling.temperature,
            seed=0,  # where a temperature is set, the same words get the same answer again
        )
        for name, conversation in asking.asked[one.arm].items()
    ]
    done = 0

    def keep(response: ChatResponse) -> None:
        nonlocal done
        cut = response.finish_reason == "length"
        response = without_thought(response) if sampling.thinking == "on" else response
        answer = Answer(
            arm=one.arm,
            artifact=one.artifact.id,
            text=response.text,
            seconds=(response.latency_ms or 0.0) / 1000,
            tokens=response.completion_tokens,
            cut_at_tokens=requests[0].max_tokens if cut else 0,
            error=response.error or "",
        )
        asking.take(response.id, answer)
        done += 1
        _progress(asking, f"asking {one.arm}", done, len(requests))

    _progress(asking, f"asking {one.arm}")
    with servers.lease(server):
        chat_client(server).complete_all(requests, concurrency=_AT_ONCE, on_result=keep)
    asking.answered.add(one.arm)
