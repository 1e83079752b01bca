"""The conversation at the prompt: the driver fetched and started when it is first spoken to, and one turn at a time.

Light: pydantic-ai is imported by a thread behind the prompt, the driver's server started by the first words.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import replace
from typing import TYPE_CHECKING, Unpack

from tunesmith.agent.commands.approvals import pending
from tunesmith.memory.errors import StepFailed
from tunesmith.memory.records import DECLINED, DONE, RUNNING, Step
from tunesmith.tools.core.settled import uncollected
from tunesmith.tools.core.stage import Plan
from tunesmith.tools.pipeline.plan_file import PipelinePlan
from tunesmith.tools.pipeline.workspace import Decision, EventData

if TYPE_CHECKING:
    from pydantic_ai.models import Model

    from tunesmith.agent.driver.chat import Chat
    from tunesmith.agent.driver.endpoint import Driver
    from tunesmith.agent.driver.voice import Reply
    from tunesmith.agent.repl.shell import Shell
    from tunesmith.agent.repl.trial import Trial
    from tunesmith.tools.serving.endpoint import Endpoint

_POLL_S = 0.1
"""A Ctrl-C and a question from the turn's own thread wait no longer."""
_NOTICE_EVERY_S = 15.0
"""A driver takes up to a minute to start: silence for longer looks like a hang."""
_NOT_FETCHED = "no driver was fetched; questions about runs are answered without one, and /help lists the commands"


class Talk:
    """The conversation of one REPL."""

    def __init__(self, screen: Shell) -> None:
        self._screen = screen
        self._loaded = threading.Event()
        self._chat: Chat | None = None
        self._driver: Driver | None = None
        self._trial: Trial | None = None
        self._error: Exception | None = None
        self._stopped = False
        self._declined = False
        """Whether the driver's download was declined in this turn: it is not asked about twice."""
        self._fetching = ""
        """The step that fetches the driver for the present turn and whose bar is not shown yet."""
        self._lock = threading.Lock()  # ends of steps are told from several threads
        self._woken: set[str] = set()
        """Steps whose end the conversation has spoken of."""
        self._then: Callable[[], None] | None = None
        """What is asked once the present turn is told."""
        self._waiting = ("", "")
        """That step once its bar was let go of, and the words that wait for it."""

    def load(self) -> None:
        """Import the agent in a thread, so that the first words do not wait for it."""
        threading.Thread(target=self._load, daemon=True).start()  # `exit` waits for no import

    def _load(self) -> None:
        try:
            with uncollected():
                self._chat = self._new_chat()
            self._chat.switch(self._chat.id)
        except Exception as error:  # of a thread: the first words that need the conversation say it
            self._error = error
        finally:
            self._loaded.set()
        if self._chat:
            self.tell_description()
            self._ask_again(self._chat)
        _warm()

    def _ask_again(self, chat: Chat) -> None:
        """A call of the driver's that waited for a yes when the program ended: its conversation is gone on with."""
        own, waited = chat.id, chat.conversations.waiting()
        if not waited or chat.open_description():
            return
        chat.switch(waited)
        if steps := chat.waiting():
            names = ", ".join(f"{step.stage} ({step.id})" for step in steps)
            self._screen.say(f"{names} still waits for your yes, as the conversation was left:")
            self._screen.later(self._go_on)
        else:
            chat.switch(own)

    def _new_chat(self) -> Chat:
        from tunesmith.agent.driver.abilities import known
        from tunesmith.agent.driver.chat import Chat
        from tunesmith.agent.driver.endpoint import Driver, driver_state
        from tunesmith.agent.driver.turn_deps import TurnDeps
        from tunesmith.agent.repl.trial import Trial

        screen = self._screen
        self._driver = driver = Driver(screen.settings)
        self._trial = Trial(driver, screen.ws, screen.show, self._fetch_proposed)
        deps = TurnDeps(
            ws=screen.ws,
            approver=self._ask,
            show=screen.show,
            start_pipeline=self._start_pipeline,
            endpoint=self._endpoint,
            known=lambda: known(driver),
            edit=self._edit,
            end=self._end,
            driver_state=lambda: driver_state(screen.settings),
        )
        return Chat(deps)

    def _end(self, step: str) -> None:
        """Ask, once this turn is told, whether a step is to be ended, or with none what is served."""
        from tunesmith.agent.repl import slash

        def ask() -> None:
            if step:
                slash.stop(self._screen, step)
            elif self._screen.confirm("End what is served?"):
                slash.serve(self._screen, "stop")
            else:
                self._screen.say("it goes on being served")

        self._then = ask

    def chat(self) -> Chat:
        """The conversation, waited for. Raises what kept it from loading."""
        self._loaded.wait()
        if self._chat is None:
            raise self._error or RuntimeError("the conversation did not load")
        return self._chat

    def tell_description(self) -> None:
        """A line about the description that is open, where one is: the next words may be its answer."""
        if line := self.chat().open_description():
            self._screen.say(line)

    def turn(self, text: str) -> None:
        """Hold one turn; Ctrl-C cancels it. Raises what was wrong with the driver, in one line."""
        self._hold(lambda chat: chat.begin(text, self._model, self._screen.say), text)

    def _go_on(self) -> None:
        self._hold(lambda chat: chat.go_on(self._model, self._screen.say), "")

    def _model(self) -> Model:
        from tunesmith.agent.driver.endpoint import model_of

        return model_of(self._endpoint())

    def _hold(self, begin: Callable[[Chat], Future[Reply]], text: str) -> None:
        chat = self.chat()  # first: two threads that import the same packages at once can wait for each other
        from tunesmith.agent.driver.chat import Cancelled

        self._stopped = self._declined = False
        self._waiting, self._then = ("", ""), None
        planned = self._trial is not None and chat.deps.draft is not None
        future = begin(chat)
        while True:
            try:
                if wait([future], timeout=_POLL_S).done:  # between two looks the person is asked
                    future.result()
                    self._try_out(chat, planned=planned)
                    if self._then:
                        self._screen.later(self._then)
                    return
                self._screen.answer_questions()
                self._follow_fetch(text)
            except KeyboardInterrupt:  # of the turn: a step goes on in its worker
                self._stopped = True
                chat.cancel()
            except Cancelled:  # by a Ctrl-C; or by the wait for a driver, which said so already
                if not self._waiting[0]:
                    self._screen.say("stopped; jobs go on")
                return

    def _try_out(self, chat: Chat, *, planned: bool) -> None:
        """Have a driver examined of which nothing is known; nobody is asked about it in the midst of a plan."""
        if self._trial:
            waits = planned or chat.deps.draft or chat.open_description() or self._screen.carries_a_plan()
            self._trial.behind_a_turn(may_ask=not waits)

    def _ask(self, plan: Plan, step: str) -> Decision:
        """Asks through the main thread; a turn that was stopped meanwhile leaves its question undecided."""

        def ask() -> Decision:
            if self._stopped:
                raise pending(plan, step, "the turn was stopped")
            return self._screen.approver(plan, step)

        return self._screen.from_thread(ask)

    def _follow_fetch(self, text: str) -> None:
        """The bar of the driver's download, while it is fetched for these words; Ctrl-C gives the prompt back, also
        before there is a bar."""
        step, self._fetching = self._fetching, ""
        if not step or (not self._stopped and self._screen.follow(step)):
            return
        self._waiting = (step, text)
        self.chat().cancel()
        self._screen.say(f"the driver is fetched in the background ({step}); your words are taken up once it is here")
        self.ended(self._screen.store.step(step))

    def ended(self, step: Step) -> None:
        """A step has ended: take up what was said while the driver was fetched, else say what is next; any thread."""
        with self._lock:
            waiting_for, text = self._waiting
            waited = step.id == waiting_for and step.ended
            if waited:
                self._waiting = ("", "")
        if waited and step.status == DONE:
            self._screen.enqueue(text)
        elif not waited and self._loaded.is_set() and self._chat and not self._screen.carries_a_plan():
            self._wake(self._chat, step)

    def plan_ended(self, run: str) -> None:
        """A plan has been carried out: say what is next; from its own thread."""
        if self._loaded.is_set() and self._chat and (steps := self._screen.store.steps(run, status=DONE)):
            self._wake(self._chat, steps[-1])

    def _wake(self, chat: Chat, step: Step) -> None:
        """The turn that the conversation takes by itself once a job has ended, one for each."""
        from tunesmith.agent.driver import drafts
        from tunesmith.agent.repl import step_ended

        store = self._screen.store
        if step.request.get("role") in ("driver", "teacher") or step.status == DECLINED or step.id in self._woken:
            return
        self._woken.add(step.id)
        if chat.deps.level == "native" and drafts.open_interview(store.home) is None:
            words = step_ended.prompt(store, step)
            self._screen.later(lambda: self.turn(words))
            return
        for line in step_ended.words(store, step):
            self._screen.say(line)

    def _endpoint(self) -> Endpoint:
        from tunesmith.agent.driver.chat import stop_if_cancelled
        from tunesmith.agent.driver.endpoint import DriverMissing

        assert self._driver is not None
        next_note = [0.0]

        def waiting(seconds: float) -> None:
            stop_if_cancelled()
            if seconds >= next_note[0]:
                usual = "about a minute without a GPU; Ctrl-C gives the prompt back"
                self._screen.say(f"the driver is starting ({seconds:.0f} s; {usual})")
                next_note[0] += _NOTICE_EVERY_S

        try:
            return self._driver.ensure(waiting)
        except DriverMissing as missing:
            if self._declined:
                raise StepFailed(_NOT_FETCHED) from None
            self._screen.say(f"{missing}; this fetches it:")
            self._fetch()
            return self._driver.ensure(waiting)

    def _fetch(self) -> None:
        """Fetch the driver, or wait for the step that does so already. Raises StepFailed, Cancelled."""
        from tunesmith.agent.driver.chat import stop_if_cancelled

        at_work = [s.id for s in self._screen.store.steps(status=RUNNING) if s.request.get("role") == "driver"]
        self._fetching = fetching = at_work[0] if at_work else self._agreed_fetch()
        while not (step := self._screen.store.step(fetching)).ended:
            stop_if_cancelled()
            time.sleep(_POLL_S)  # a person waits
        if step.status != DONE:
            raise StepFailed(f"{step.stage} ({step.id}) {step.status}: {step.error}")

    def _agreed_fetch(self) -> str:
        """Ask about the download and start it; its step. Raises StepFailed for a no.

        Where a card has room for a stronger driver than the bundled one, that is proposed first.
        """
        from tunesmith.agent.oneshot import FETCH
        from tunesmith.tools.pipeline.driver_choice import proposed
        from tunesmith.tools.pipeline.run_step import run_step

        def emit(event: str, /, **data: Unpack[EventData]) -> None:
            if event != "step.started":  # a bar shows that, and nothing can be typed meanwhile
                self._screen.ws.emit(event, **data)

        ws = replace(self._screen.ws, emit=emit)
        stronger = proposed(ws)
        chosen = {"model": stronger.driver.model} if stronger and ws.ask(stronger.question) else {}
        outcome = run_step(ws, replace(FETCH, fields={**FETCH.fields, **chosen}), self._ask, follow=False)
        if outcome.declined:
            self._declined = True
            raise StepFailed(_NOT_FETCHED)
        self._screen.say("Ctrl-C lets it go on in the background")
        return outcome.step.id

    def _fetch_proposed(self, model: str) -> None:
        """Price the download of a driver that was proposed and agreed to, and leave it to its worker."""
        from tunesmith.agent.oneshot import FETCH
        from tunesmith.tools.pipeline.run_step import run_step

        self._stopped = False
        run_step(self._screen.ws, replace(FETCH, fields={**FETCH.fields, "model": model}), self._ask, follow=False)

    def _edit(self, text: str) -> str:
        """Have the user edit a text: the terminal is the editor's until it is closed."""
        from tunesmith.agent.repl.editor import in_editor

        edited: str = self._screen.from_thread(lambda: in_editor(text, self._screen.settings.editor))
        return edited

    def _start_pipeline(self, plan: PipelinePlan) -> str:
        self._screen.start_plan(plan)
        return "it is carried out in the background; before each expensive step the user is asked at the prompt"

    def heard(self, words: str, priced: Plan | None) -> tuple[str, str]:
        """What is said to words that come instead of a yes or a no to what is priced, if anything is, empty where they
        are one; and the answer that they come to."""
        if not self._loaded.is_set() or self._chat is None:
            return "", words
        from tunesmith.agent.driver.at_price import heard

        return heard(self._chat.deps, self._chat.spoken, words, priced)

    def close(self) -> None:
        """Let go of the driver; its server ends by its lease."""
        if self._trial:
            self._trial.close()
        if self._driver:
            self._driver.close()
        if self._chat:
            self._chat.close()


def _warm() -> None:
    """Import what the first words would wait for, and load what reads them."""
    from tunesmith.agent.words.head import NoEncoder
    from tunesmith.agent.words.reading import reader

    with contextlib.suppress(NoEncoder):  # words are read by code and driver alone then
        reader()
    with contextlib.suppress(ImportError):  # the first turn says what is missing
        import pydantic_ai.models.openai
        import pydantic_ai.providers.vllm  # noqa: F401  # loaded before it is needed
