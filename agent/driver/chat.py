"""One turn of the conversation after the other: heard, answered sentence by sentence, checked, and kept.

The model runs in an event loop of its own thread, so that the caller's thread stays free to show, to ask, and to
cancel. What the user said is in the store before anything is done about it.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager
from contextvars import ContextVar

from pydantic import ValidationError
from pydantic_ai import CancellationToken, DeferredToolResults
from pydantic_ai.exceptions import RunCancelled
from pydantic_ai.messages import (
    ModelMessage,
    ModelMessagesTypeAdapter,
    ToolReturnPart,
    UserPromptPart,
    repair_messages,
)
from pydantic_ai.models import Model
from pydantic_ai.settings import ModelSettings

from tunesmith.agent.commands.startup import unexpected
from tunesmith.agent.driver import drafts, fallback, interview
from tunesmith.agent.driver.agent import LIMITS, build_agent, clear_line, messages_of
from tunesmith.agent.driver.agreement import asked_again, with_lost_results
from tunesmith.agent.driver.drafts import Interview
from tunesmith.agent.driver.endpoint import NotYetStarted
from tunesmith.agent.driver.history import is_prompt, is_summary, summed_up
from tunesmith.agent.driver.stages import run_stage
from tunesmith.agent.driver.turn_deps import Call, TurnAnswer, TurnDeps
from tunesmith.agent.driver.voice import Reply, Say, Voice
from tunesmith.memory.conversations import Conversations, Waiting
from tunesmith.memory.damage import StoreDamaged
from tunesmith.memory.errors import ApprovalPending, NotFound, StepFailed, TunesmithError
from tunesmith.memory.records import PLANNED, Step
from tunesmith.tools.pipeline import catalog
from tunesmith.tools.pipeline.plan_file import PipelinePlan

_POLL_S = 0.1
"""A Ctrl-C, which only the waiting thread sees, waits no longer."""


class Cancelled(Exception):
    """The turn was cancelled by the user; jobs go on."""


_TOKEN: ContextVar[CancellationToken] = ContextVar("token")


def stop_if_cancelled() -> None:
    """Raises Cancelled where the turn on whose behalf this runs was cancelled; for the threads that it waits for."""
    if (token := _TOKEN.get(None)) and token.cancelled:
        raise Cancelled


class Chat:
    """A conversation with one driver: that in which a description is open, else a new one."""

    def __init__(self, deps: TurnDeps) -> None:
        self.deps = deps
        self.spoken = fallback.Spoken()
        self.conversations = Conversations(deps.store)
        self.id = drafts.conversation_of(deps.store.home) or self.conversations.new()
        deps.user_turns = lambda: [turn.prompt for turn in self.conversations.load(self.id, whole=True).turns]
        self._agent = build_agent(None)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)  # leaving waits for no model
        self._thread.start()
        self._token = CancellationToken()
        self._drivers: list[Model] = []
        self._number = 0
        """Of the turn that runs, or ran last."""
        self._planned: PipelinePlan | None = None
        """The plan that was proposed when it began."""

    def begin(self, prompt: str, model: Callable[[], Model], say: Say) -> Future[Reply]:
        """Start a turn; `say` gets every sentence once its figures were checked.

        `model` is called in the turn's own thread, for it may have to start a server; what was said is kept before.

        The future raises ApprovalPending where nobody could decide, Cancelled, or StepFailed with one clear line
        about what is wrong with the driver.
        """
        self._token = CancellationToken()
        self.deps.begin_turn(prompt)
        return asyncio.run_coroutine_threadsafe(self._turn(prompt, model, say), self._loop)

    def waiting(self) -> list[Step]:
        """The steps that this conversation's driver asked for and that nobody has decided on."""
        waiting = self.conversations.load(self.id).waiting
        steps = map(self.deps.store.step, waiting.calls.values() if waiting else ())
        return [step for step in steps if step.status == PLANNED]

    def go_on(self, model: Callable[[], Model], say: Say) -> Future[Reply]:
        """Take up the turn whose calls wait: each is asked about again. Raises as `begin` does, in the future."""
        conversation = self.conversations.load(self.id)
        if conversation.waiting is None:
            raise NotFound("no call waits in this conversation")
        self._token = CancellationToken()
        self.deps.begin_turn(conversation.turns[-1].prompt)
        return asyncio.run_coroutine_threadsafe(self._goes_on(conversation.waiting, model, say), self._loop)

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
        self.spoken = fallback.Spoken()
        self._recall(self._history(0))
        self._take_back()

    def undo(self) -> str:
        """Take the newest turn back, with what it did to the proposed plan and the description. Raises NotFound."""
        self._keep_description()
        prompt = self.conversations.undo(self.id).prompt
        self._take_back()
        return prompt

    def open_description(self) -> str:
        """A line about the description that is open, for a user who comes back to it; empty where none is."""
        interview = drafts.open_interview(self.deps.store.home)
        return f"a description is open: {interview.question} (`drop it` gives it up)" if interview else ""

    def _take_back(self) -> None:
        """Let the proposed plan and the open description be those of this conversation."""
        kept = self.conversations.load(self.id)
        try:
            self.deps.draft = PipelinePlan.model_validate(kept.draft) if kept.draft else None
        except ValidationError:  # of another version
            self.deps.draft = None
        drafts.put_back(self.deps.store.home, kept.description)

    def _keep_description(self, turn: int = 0) -> None:
        """Write down what was said of a new behaviour after a turn, in the conversation that it belongs to.

        Without a turn: after the newest one, which a kill may have interrupted, and only where a description is open;
        for another program may have put this conversation's away.
        """
        interview = drafts.belonging(self.deps.store.home, self.id)
        owner = interview.conversation if interview else self.id
        before, now = self.conversations.load(owner), interview.model_dump(mode="json") if interview else None
        if now != before.description and (now or turn):
            newest = before.turns[-1].number if before.turns else 0
            self.conversations.description(owner, turn if turn and owner == self.id else newest, now)

    def _recall(self, messages: Sequence[ModelMessage]) -> None:
        """Let figures be held to what these messages told, as if they had been heard by this process."""
        for message in messages:
            if is_prompt(message):
                self.deps.ledger.begin_turn()
            for part in message.parts if not is_summary(message) else ():  # a summary holds words of the driver's
                if isinstance(part, ToolReturnPart | UserPromptPart):
                    self.deps.note(part.content)

    def _finish(self, reply: str, messages: Sequence[ModelMessage] = ()) -> None:
        """Keep a turn's answer, and before it the plan and the description that the answer may speak of."""
        plan = self.deps.draft
        if plan != self._planned:
            self.conversations.draft(self.id, self._number, plan.model_dump(mode="json") if plan else None)
        self._keep_description(self._number)
        self.conversations.finish(self.id, self._number, reply, _dumped(messages))

    async def _turn(self, prompt: str, model: Callable[[], Model], say: Say) -> Reply:
        _TOKEN.set(self._token)
        self._keep_description()
        drafts.put_back(self.deps.store.home, self.conversations.load(self.id).description)
        self._number, voice = self.conversations.begin(self.id, prompt), self._begun(model, say)
        async with self._ended():
            try:
                answer = await self._by_code(say)
            except OSError as error:  # of code: no driver was asked that could be out of reach
                raise StepFailed(unexpected(error)) from error
            if answer is not None:
                for_model = answer.for_model or answer.text  # without what no model may read
                self._finish(for_model, messages_of(self.deps.prompt, for_model))
                return Reply(answer.text)
            return await self._answered(voice, prompt, self._history(self._number), None)

    async def _goes_on(self, waiting: Waiting, model: Callable[[], Model], say: Say) -> Reply:
        """The rest of a turn that a restart ended while its calls waited for the user."""
        _TOKEN.set(self._token)
        self._number, voice = waiting.turn, self._begun(model, say)
        async with self._ended():
            messages = ModelMessagesTypeAdapter.validate_python([*waiting.messages])
            own = with_lost_results(messages, waiting.calls)
            self._recall(own)
            results = await asyncio.to_thread(asked_again, self.deps, own, waiting.calls)
            if self.deps.undecided:
                raise self.deps.undecided
            return await self._answered(voice, None, [*self._history(waiting.turn), *own], results)

    def _begun(self, model: Callable[[], Model], say: Say) -> Voice:
        self._drivers.clear()
        self._planned = self.deps.draft
        self.deps.start_driver = lambda: self._driver(model)
        return Voice(self.deps, say)

    @asynccontextmanager
    async def _ended(self) -> AsyncIterator[None]:
        """Whatever a turn ends with is kept, and raised as one clear line."""
        try:
            yield
        except ApprovalPending as pending:
            self.conversations.undecided(self.id, f"(no answer: {pending})")
            raise
        except (RunCancelled, Cancelled) as cancelled:  # the user's own: no error of the turn
            self._finish("(stopped by the user)")
            raise Cancelled from cancelled
        except (TunesmithError, StoreDamaged) as error:
            self._finish(f"(no answer: {error})")
            raise
        except Exception as error:  # whatever a driver or its library raised is told in a line
            line = clear_line(error)
            self._finish(f"(no answer: {line})")
            raise StepFailed(line) from error
        finally:
            for driver in self._drivers:
                await _close_client(driver)
            await _close_client(self.deps.driver)

    async def _answered(
        self, voice: Voice, prompt: str | None, history: list[ModelMessage], results: DeferredToolResults | None
    ) -> Reply:
        """Have the agent answer, or go on with what it waited for. Raises ApprovalPending where it waits still."""
        own = max((i for i, m in enumerate(history) if is_prompt(m)), default=0) if results else len(history)

        def keep_waiting(messages: Sequence[ModelMessage], waiting: Mapping[str, str]) -> None:
            self.conversations.wait(self.id, self._number, _dumped(messages[own:]), dict(waiting))

        self.deps.keep_waiting = keep_waiting
        result = await self._agent.run(
            prompt,
            model=NotYetStarted(),
            deps=self.deps,
            message_history=history,
            deferred_tool_results=results,
            usage_limits=LIMITS,
            model_settings=ModelSettings(parallel_tool_calls=True),
            cancellation_token=self._token,
            event_stream_handler=voice.hear,
        )
        if not isinstance(result.output, str):
            raise self.deps.undecided or ApprovalPending("a call waits for a yes")
        reply = voice.conclude(result.output)
        self._finish(reply.text, result.all_messages()[own:])
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
        self.deps.read_window()
        return driver

    async def _by_code(self, say: Say) -> TurnAnswer | None:
        """Answer the turn by code, where no driver reads it; None: the driver has to."""
        opened = drafts.open_interview(self.deps.store.home)
        asks = opened is not None and not opened.driven
        if self.deps.level == "native" and not asks:
            return None
        answer = await asyncio.to_thread(self._read, opened)
        for line in answer.text.split("\n"):
            say(line)
        return answer

    def _read(self, opened: Interview | None) -> TurnAnswer:
        """What the words come to, and what was ordered by them, carried out. Raises ApprovalPending."""
        deps = self.deps
        found = interview.turn(deps, self.spoken, opened) if opened else fallback.turn(deps, self.spoken)
        if isinstance(found, Call):
            return self._run_ordered(found)
        if found.tool:
            deps.ws.emit("tool.called", tool=found.tool, arguments=dict(found.arguments), stage="", quiet=True)
            deps.ws.emit("tool.returned", tool=found.tool, result=found.for_model or found.text, stage="")
        return found

    def _run_ordered(self, call: Call) -> TurnAnswer:
        """Carry out a step that was ordered; what is said then. Raises ApprovalPending."""
        deps, arguments = self.deps, dict(call.arguments)
        deps.ws.emit("tool.called", tool=call.tool, arguments=arguments, stage="")
        try:
            facts = run_stage(deps, catalog.BY_NAME[call.tool], arguments)
        except ApprovalPending:
            raise
        except TunesmithError as error:
            deps.went_wrong(call.tool, error)
            return TurnAnswer(" ".join(str(error).split()))
        text, deps.say_next = deps.say_next, ""
        result = json.dumps(facts, ensure_ascii=False, default=str)
        deps.ws.emit("tool.returned", tool=call.tool, result=result, stage="")
        return TurnAnswer(text or f"{call.tool} is done.", result)

    def _history(self, turn: int) -> list[ModelMessage]:
        """Every earlier turn; what of it a request holds is for the driver's context to say."""
        conversation = self.conversations.load(self.id)
        messages = [message for other in conversation.turns if other.number != turn for message in other.messages]
        valid = repair_messages(ModelMessagesTypeAdapter.validate_python(messages))
        return [*(summed_up(conversation.summary) if conversation.summary else []), *valid]


def _dumped(messages: Sequence[ModelMessage]) -> list[object]:
    dumped: list[object] = ModelMessagesTypeAdapter.dump_python([*messages], mode="json")
    return dumped


async def _close_client(driver: Model | None) -> None:
    """Close the turn's connections while their event loop still runs."""
    client = getattr(driver, "client", None)
    if client is not None:
        await client.close()
