"""One turn of the conversation after the other: heard, answered sentence by sentence, checked, and kept.

The model runs in an event loop of its own thread, so that the caller's thread stays free to show, to ask, and to
cancel. What the user said is in the store before anything is done about it.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterable, Callable
from concurrent.futures import Future
from contextvars import ContextVar
from dataclasses import dataclass

from pydantic import ValidationError
from pydantic_ai import CancellationToken, RunContext, UsageLimits
from pydantic_ai.exceptions import (
    RunCancelled,
)
from pydantic_ai.messages import (
    FunctionToolCallEvent,
    FunctionToolResultEvent,
    ModelMessage,
    ModelMessagesTypeAdapter,
    ModelRequest,
    ModelResponse,
    PartDeltaEvent,
    PartStartEvent,
    TextPart,
    TextPartDelta,
    UserPromptPart,
    repair_messages,
)
from pydantic_ai.models import Model
from pydantic_ai.settings import ModelSettings

from tunesmith.agent.driver import describing, turn_errors
from tunesmith.agent.driver.agent import (
    REQUESTS_NATIVE,
    REQUESTS_PER_TURN,
    TURNS_SENT,
    build_agent,
    looks_like_a_call,
    summed_up,
)
from tunesmith.agent.driver.by_code import decide, steps_of
from tunesmith.agent.driver.driver_errors import clear_line
from tunesmith.agent.driver.endpoint import NotYetStarted
from tunesmith.agent.driver.number_grounding import checked, sentences
from tunesmith.agent.driver.probe import can_be_routed, turns_sent
from tunesmith.agent.driver.state_summary import STATE_HEADING
from tunesmith.agent.driver.tools import run_stage
from tunesmith.agent.driver.turn_answer import Call, TurnAnswer
from tunesmith.agent.driver.turn_deps import TurnDeps
from tunesmith.memory.conversations import Conversations
from tunesmith.memory.errors import ApprovalPending, StepFailed, TunesmithError
from tunesmith.tools.pipeline import catalog
from tunesmith.tools.pipeline.plan_file import PipelinePlan

_POLL_S = 0.1
Say = Callable[[str], None]


class Cancelled(Exception):
    """The turn was cancelled by the user; jobs go on."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What was answered, and the figures that were left out of it."""

    text: str
    left_out: tuple[str, ...] = ()


_TOKEN: ContextVar[CancellationToken] = ContextVar("token")


def stop_if_cancelled() -> None:
    """Raises Cancelled where the turn on whose behalf this runs was cancelled; for the threads that it waits for."""
    if (token := _TOKEN.get(None)) and token.cancelled:
        raise Cancelled


class Chat:
    """A conversation with one driver: a named one, else that in which a description is open, else a new one."""

    def __init__(self, deps: TurnDeps, *, conversation: str = "") -> None:
        self.deps = deps
        self.conversations = Conversations(deps.store)
        self.id = conversation or describing.conversation_of(deps.store.home) or self.conversations.new()
        self._agent = build_agent(None)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._token = CancellationToken()
        self._turns_sent = TURNS_SENT
        self._drivers: list[Model] = []

    def begin(self, prompt: str, model: Callable[[], Model], say: Say) -> Future[Reply]:
        """Start a turn; `say` gets every sentence once its figures were checked.

        `model` is called in the turn's own thread, for it may have to start a server; what was said is kept before.

        The future raises ApprovalPending where nobody could decide, Cancelled, or StepFailed with one clear line
        about what is wrong with the driver.
        """
        self._token = CancellationToken()
        self.deps.begin_turn(prompt)
        return asyncio.run_coroutine_threadsafe(self._turn(prompt, model, say), self._loop)

    def cancel(self) -> None:
        """Cancel the turn that runs; a job that it started goes on."""
        self._token.cancel()

    def close(self) -> None:
        """End the event loop."""
        self._loop.call_soon_threadsafe(self._loop.stop)

    def switch(self, conversation: str) -> None:
        """Go on with a conversation, or begin a new one under an id that has none.

        Its proposed plan and its open description are the turn's; those of the one that is left stay with that one.
        """
        self._keep_description()
        self.id = conversation
        self.deps.forget()
        self._take_back()

    def undo(self) -> str:
        """Take the newest turn back, with what it did to the proposed plan and the description. Raises NotFound."""
        self._keep_description()
        prompt = self.conversations.undo(self.id).prompt
        self._take_back()
        return prompt

    def open_description(self) -> str:
        """A line about the description that is open, for a user who comes back to it; empty where none is."""
        interview = describing.open_interview(self.deps.store.home)
        return f"a description is open: {interview.question} (`drop it` gives it up)" if interview else ""

    def _take_back(self) -> None:
        """Let the proposed plan and the open description be those of this conversation."""
        self._take_draft()
        describing.put_back(self.deps.store.home, self.conversations.load(self.id).description)

    def _keep_description(self, turn: int = 0) -> None:
        """Write down what was said of a new behaviour after a turn, in the conversation that it belongs to.

        Without a turn: after the newest one, which a kill may have interrupted, and only where a description is open;
        for another program may have put this conversation's away.
        """
        interview = describing.belonging(self.deps.store.home, self.id)
        owner = interview.conversation if interview else self.id
        before, now = self.conversations.load(owner), interview.model_dump(mode="json") if interview else None
        if now != before.description and (now or turn):
            newest = before.turns[-1].number if before.turns else 0
            self.conversations.description(owner, turn if turn and owner == self.id else newest, now)

    def _take_draft(self) -> None:
        draft = self.conversations.load(self.id).draft
        try:
            self.deps.draft = PipelinePlan.model_validate(draft) if draft else None
        except ValidationError:  # of another version
            self.deps.draft = None

    def _finish(self, turn: int, reply: str, messages: list[object], before: PipelinePlan | None) -> None:
        """Keep a turn's answer, and before it the plan and the description that the answer may speak of."""
        plan = self.deps.draft
        if plan != before:
            self.conversations.draft(self.id, turn, plan.model_dump(mode="json") if plan else None)
        self._keep_description(turn)
        self.conversations.finish(self.id, turn, reply, messages)

    async def _turn(self, prompt: str, model: Callable[[], Model], say: Say) -> Reply:
        _TOKEN.set(self._token)
        self._keep_description()
        describing.put_back(self.deps.store.home, self.conversations.load(self.id).description)
        number, before = self.conversations.begin(self.id, prompt), self.deps.draft
        voice = _Voice(self.deps, say)
        self._drivers.clear()
        self.deps.start_driver = lambda: self._driver(model)
        try:
            if (answer := await self._by_code(say)) is not None:
                self._finish(number, answer.told or answer.text, _as_messages(prompt, answer), before)
                return Reply(answer.text)
            result = await self._agent.run(
                prompt,
                model=NotYetStarted(),
                deps=self.deps,
                message_history=self._history(number),
                usage_limits=UsageLimits(request_limit=REQUESTS_NATIVE if self.deps.native else REQUESTS_PER_TURN),
                model_settings=ModelSettings(parallel_tool_calls=self.deps.native),
                cancellation_token=self._token,
                event_stream_handler=voice.hear,
            )
        except (RunCancelled, Cancelled) as cancelled:
            self._finish(number, "(stopped by the user)", [], before)
            raise Cancelled from cancelled
        except TunesmithError as error:
            self._finish(number, f"(no answer: {error})", [], before)
            raise
        except Exception as error:
            line = clear_line(error)
            self._finish(number, f"(no answer: {line})", [], before)
            raise StepFailed(line) from error
        finally:
            for driver in self._drivers:
                await _close_client(driver)
            await _close_client(self.deps.returned)
        reply = voice.conclude(result.output)
        self.deps.last_answer = reply.text
        messages = ModelMessagesTypeAdapter.dump_python(result.new_messages(), mode="json")
        self._finish(number, reply.text, messages, before)
        return reply

    async def _driver(self, model: Callable[[], Model]) -> Model:
        """The driver once it answers, with what its examination said of it.

        Raises Cancelled at once, whatever the thread that starts it is at.
        """
        starting = asyncio.ensure_future(asyncio.to_thread(model))
        starting.add_done_callback(lambda ended: ended.cancelled() or ended.exception())  # nobody may be left to ask
        while not starting.done():
            await asyncio.wait({starting}, timeout=_POLL_S)
            if not starting.done():
                stop_if_cancelled()
        driver = await starting
        self._drivers.append(driver)
        self._turns_sent = turns_sent(self.deps.store.home, driver.model_name, TURNS_SENT)
        self.deps.routed &= can_be_routed(self.deps.store.home, driver.model_name)
        return driver

    def _run_ordered(self, call: Call) -> TurnAnswer:
        """Carry out a step that was ordered; what is said then. Raises ApprovalPending."""
        deps, arguments = self.deps, dict(call.arguments)
        deps.ws.emit("tool.called", tool=call.tool, arguments=arguments, stage="")
        try:
            facts = run_stage(deps, catalog.BY_NAME[call.tool], arguments)
        except ApprovalPending:
            raise
        except TunesmithError as error:
            turn_errors.went_wrong(deps, call.tool, error)
            return TurnAnswer(" ".join(str(error).split()))
        text, deps.say_next = deps.say_next, ""
        result = json.dumps(facts, ensure_ascii=False, default=str)
        deps.ws.emit("tool.returned", tool=call.tool, result=result, stage="")
        return TurnAnswer(text or f"{call.tool} is done.", result)

    async def _by_code(self, say: Say) -> TurnAnswer | None:
        """Answer the turn by code, where the words are plain; None: the driver has to."""
        describes = self.deps.native and describing.open_interview(self.deps.store.home) is not None
        if not (self.deps.code_first or describes):
            return None
        whole = self.deps.prompt
        steps = await asyncio.to_thread(steps_of, self.deps)
        said: list[TurnAnswer] = []
        try:
            for self.deps.prompt in steps:
                found = await self._one_step(say)
                if found is None:
                    return None
                said.append(found)
        finally:
            self.deps.prompt = whole
        told = [one.told or one.text for one in said]
        return said[0] if len(said) == 1 else TurnAnswer("\n".join(one.text for one in said), "\n".join(told))

    async def _one_step(self, say: Say) -> TurnAnswer | None:
        found: TurnAnswer | Call | None = await asyncio.to_thread(decide, self.deps)
        if isinstance(found, Call):
            found = await asyncio.to_thread(self._run_ordered, found)
        if found is not None:
            if found.tool:
                self.deps.ws.emit("tool.called", tool=found.tool, arguments=dict(found.arguments), stage="", quiet=True)
                self.deps.ws.emit("tool.returned", tool=found.tool, result=found.told or found.text, stage="")
            for line in found.text.split("\n"):
                say(line)
        return found

    def _history(self, turn: int) -> list[ModelMessage]:
        conversation = self.conversations.load(self.id)
        earlier = [other for other in conversation.turns if other.number != turn]
        earlier = earlier[len(earlier) - min(self._turns_sent, len(earlier)) :]
        messages = [message for other in earlier for message in other.messages]
        if conversation.summary:
            return [*summed_up(conversation.summary), *_valid(messages)]
        return _valid(messages)


async def _close_client(driver: Model | None) -> None:
    """Close the turn's connections while their event loop still runs."""
    client = getattr(driver, "client", None)
    if client is not None:
        await client.close()


def _as_messages(prompt: str, answer: TurnAnswer) -> list[object]:
    """A turn that code answered, as a driver reads it later."""
    messages: list[ModelMessage] = [
        ModelRequest([UserPromptPart(prompt)]),
        ModelResponse([TextPart(answer.told or answer.text)]),
    ]
    return list(ModelMessagesTypeAdapter.dump_python(messages, mode="json"))


def _valid(messages: list[object]) -> list[ModelMessage]:
    return repair_messages(ModelMessagesTypeAdapter.validate_python(messages))


class _Voice:
    """The events of a turn on their way to the user."""

    def __init__(self, deps: TurnDeps, say: Say) -> None:
        self._deps, self._say = deps, say
        self._text, self._spoken = "", ""
        self._called: set[str] = set()
        self._said: list[str] = []
        self._left_out: list[str] = []

    async def hear(self, ctx: RunContext[TurnDeps], events: AsyncIterable[object]) -> None:
        """Take the events of one model request or one round of tool calls."""
        async for event in events:
            if isinstance(event, PartStartEvent) and isinstance(event.part, TextPart):
                self._text, self._spoken = event.part.content, ""
                self._speak()
            elif isinstance(event, PartDeltaEvent) and isinstance(event.delta, TextPartDelta):
                self._text += event.delta.content_delta
                self._speak()
            elif isinstance(event, FunctionToolCallEvent) and event.part.tool_call_id not in self._called:
                self._called.add(event.part.tool_call_id)  # it comes again once it was agreed to
                self._deps.ws.emit(
                    "tool.called", tool=event.part.tool_name, arguments=event.part.args_as_dict(), stage=""
                )
            elif isinstance(event, FunctionToolResultEvent):
                part = event.part
                self._deps.ws.emit("tool.returned", tool=part.tool_name, result=str(part.content)[:2000], stage="")

    def _speak(self) -> None:
        """Say the sentences that are whole; what may turn out to be a call, or no answer, waits for its end."""
        if looks_like_a_call(self._text) or STATE_HEADING in self._text:
            return
        whole = sentences(self._text)[:-1]
        for sentence in whole[len(sentences(self._spoken)) :]:
            self._utter(sentence)
        self._spoken = "\n".join(whole)

    def _utter(self, sentence: str) -> None:
        if self._deps.spoken:
            return
        supported, wrong = checked(sentence, self._deps.heard)
        self._left_out += wrong
        if supported:
            self._said.append(supported)
            self._say(supported)

    def conclude(self, output: str) -> Reply:
        """Say what is left of the last text, and note what was left out."""
        output = _own_words(output)
        rest = sentences(output)[len(sentences(self._spoken)) :] if self._text else sentences(output)
        for sentence in rest:
            self._utter(sentence)
        if self._deps.spoken:
            return Reply("\n".join(self._deps.spoken))
        if self._left_out:
            figures = ", ".join(dict.fromkeys(self._left_out))
            note = f"(A sentence with a figure that no record holds was left out: {figures}.)"
            self._said.append(note)
            self._say(note)
        if not self._said:
            self._said.append("I have no answer to that; say it in other words, or “help” for what I can do.")
            self._say(self._said[-1])
        return Reply(" ".join(self._said), tuple(self._left_out))


def _own_words(text: str) -> str:
    """A reply without the state that only the model was to read: a small one says it again, at its end."""
    return text.partition(STATE_HEADING)[0].rstrip(" (")
