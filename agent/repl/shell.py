"""What stands behind the prompt: the store, the jobs, and the questions that a running plan asks.

Its methods run in the main thread, between two prompts, unless they say otherwise. A plan (`/demo`, `/run`, `/resume`)
runs in a thread of its own that only waits: the work is in workers, and what it asks is asked at the prompt.
"""

from __future__ import annotations

import io
import queue
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TypeVar, Unpack

from prompt_toolkit import PromptSession
from prompt_toolkit.input.typeahead import clear_typeahead
from rich.console import Console, Group, RenderableType

from tunesmith.agent.commands import queries, render, run_steps, settings
from tunesmith.agent.commands.approvals import TerminalApprover, let_keys_pass, pending, yes_or_no
from tunesmith.agent.commands.keys import drop_typed_ahead
from tunesmith.agent.commands.layout import prose
from tunesmith.agent.commands.output import Output
from tunesmith.agent.commands.price import forecast_table, price_lines, price_page
from tunesmith.agent.commands.settings import Settings
from tunesmith.agent.commands.startup import open_store, unexpected
from tunesmith.agent.commands.terminal import SafeConsole
from tunesmith.agent.repl import bare, slash
from tunesmith.agent.repl.folding import Folding
from tunesmith.agent.repl.greeting import greeting
from tunesmith.agent.repl.monitor import Monitor
from tunesmith.agent.repl.talk import Talk
from tunesmith.agent.repl.toolbar import TOOLBAR_STYLE, toolbar, without_mouse
from tunesmith.memory.errors import BadInput, TunesmithError
from tunesmith.memory.records import RUNNING, Step
from tunesmith.memory.store import Store
from tunesmith.tools.core.stage import Plan, PlanQuestion
from tunesmith.tools.pipeline import catalog
from tunesmith.tools.pipeline.forecast import Forecast
from tunesmith.tools.pipeline.plan_file import PipelinePlan
from tunesmith.tools.pipeline.runs import set_run_status
from tunesmith.tools.pipeline.workspace import Decision, EventData

T = TypeVar("T")


class Shell:
    """The screen of the slash commands, the conversation and completion. What asks runs in the main thread;
    `from_thread` brings a question there."""

    def __init__(self, chosen: Settings, store: Store, wake: Callable[[], None]) -> None:
        self.settings = chosen
        self.store = store
        self.wake = wake
        self.ws = chosen.workspace(store, self.emit, self.answer)
        self.monitor = Monitor(store, tell=self._tell, changed=self._redraw)
        self.plans: dict[str, threading.Thread] = {}
        self.bar_console: Console | None = None
        self._printed: set[str] = set()
        self._folding = Folding()
        self.talk = Talk(self)
        self._approver = TerminalApprover(self.ask, lambda plan, step: self.show(price_page(plan, step)))
        self._asked_for: Plan | None = None
        """The stage whose price stands before the user."""
        self._questions: queue.Queue[Callable[[], None]] = queue.Queue()
        # EOFError: a KeyboardInterrupt that leaves the prompt would end the event loop of the turn that asks.
        self._asking: PromptSession[str] = PromptSession(
            bottom_toolbar=lambda: toolbar(self.monitor.line()), style=TOOLBAR_STYLE, interrupt_exception=EOFError,
            key_bindings=without_mouse(),
        )  # fmt: skip

    @classmethod
    def open(cls, wake: Callable[[], None]) -> Shell:
        """Load settings and store; what died meanwhile is told above the prompt. Raises BadInput."""
        chosen = settings.load()
        out = Output(console=_console())
        return cls(chosen, open_store(chosen, out), wake)

    def begin(self) -> None:
        """Say where things stand, start watching the jobs, and load what the conversation needs."""
        self.monitor.look()
        self.say("\n".join(greeting(self.store)))
        self.monitor.start()
        self.talk.load()

    # What the prompt needs, from any thread

    def show(self, view: RenderableType) -> None:
        """Print above the prompt, or above the bar where one is shown."""
        if isinstance(view, Group):
            self._printed.add(_text(view))
        (self.bar_console or _console()).print(view)

    def page(self, view: RenderableType) -> None:
        """Print what was asked for, as much of it as the screen holds. Nothing that is to be agreed to: all of that."""
        self._folding.show(self.bar_console or _console(), view)

    def more(self) -> bool:
        """Print the next screen of a long page; False where nothing is left of one."""
        return self._folding.more(_console())

    def show_once(self, view: RenderableType) -> None:
        """Print something unless this session has shown it, word for word."""
        if _text(view) not in self._printed:
            self.show(view)

    def say(self, text: str) -> None:
        """Print plain text, wrapped between its words; brackets in it are no markup."""
        (self.bar_console or _console()).print(prose(text))

    def main_console(self) -> Console:
        """The terminal itself, for the main thread while it shows no prompt."""
        return SafeConsole(file=sys.__stdout__, highlight=False)

    def follow(self, step: str) -> bool:
        """A bar until the step ends, whose end is told then, once; False for Ctrl-C, which lets it go on."""
        self.bar_console = self.main_console()
        try:
            code = queries.follow(self.store, step, Output(console=self.bar_console))
        finally:
            self.bar_console = None
        if code != run_steps.LET_GO:
            self.monitor.announce(self.store.step(step))
        return code != run_steps.LET_GO

    def emit(self, event: str, /, **data: Unpack[EventData]) -> None:
        """An event of a step or a plan: what the user should see of it."""
        stage = data.get("stage", "")
        step = self.store.step(data["step"]) if stage and "step" in data else None
        asked = step is not None and catalog.ENTRIES[stage].asks(step.request)
        if event in ("message", "driver.gave_way"):
            self.say(data["text"])
        elif event == "run.started":
            self.plans[data["run"]] = threading.current_thread()
            self.say(f"run {data['run']} ({data['name']}): {', '.join(map(str, data['steps']))}")
        elif event == "plan.shown" and asked and isinstance(plan := data["plan"], Plan):
            self.show(price_lines(plan, data["step"], resumed=bool(data.get("resumed"))))
        elif event == "step.started" and asked:
            self.say(f"{stage} ({data['step']}) runs; /attach {data['step']} follows it, /stop {data['step']} ends it")
        elif event == "step.finished" and asked:
            self.monitor.announce(self.store.step(data["step"]))

    # One line after the other

    def handle(self, line: str) -> bool:
        """Carry out one line; False to leave. An error is one line, and the REPL lives on."""
        try:
            if not line:
                return self._go_on_with_a_page()
            self._folding.open = False
            if command := bare.command(line, page_left=self._folding.left):
                return slash.carry_out(self, command)
            self.talk.turn(line)  # jobs go on whatever becomes of it
        except TunesmithError as error:
            self.say(f"tunesmith: {error}")
        except KeyboardInterrupt:  # of the turn alone
            self.say("interrupted; jobs go on")
        except EOFError:
            self.say("nothing was decided")
        except Exception as error:  # the REPL outlives any turn: it is said, with where its trace is
            self.say(f"tunesmith: {unexpected(error)}")
        return True

    def _go_on_with_a_page(self) -> bool:
        if self._folding.open:
            self.more()
        return True

    # Questions

    def ask(self, question: str) -> str:
        """Ask at the prompt; slash commands and side questions are answered meanwhile, and it is asked again.

        Raises EOFError for Ctrl-C and Ctrl-D.
        """
        remark, _, question = question.rpartition("\n")
        if remark:
            self.say(remark)
        while True:
            drop_typed_ahead()
            clear_typeahead(self._asking.app.input)  # what prompt-toolkit had read already for the prompt before
            answer = self._asking.prompt(question)
            if answer.strip().startswith("/"):
                self.handle(answer.strip())
                continue
            reply, answer = self.talk.heard(answer, self._asked_for)
            if not reply:
                return answer
            for line in reply.splitlines():  # a question back is neither a yes nor a no
                self.say(line)

    def confirm(self, question: str) -> bool:
        """Whether what is to be ended or given up is, asked until that is plain. With the grace."""
        from tunesmith.agent.commands.approvals import ends, read_answer

        let_keys_pass()
        remark = ""
        while not (agreed := ends(words := self.ask(f"{remark}{question} (yes or no) "))):
            answer = read_answer(words, by="terminal")
            if not words.strip() or (answer is not None and not answer.yes):
                break
            remark = f"“{words.strip()[:80]}” is no plain yes, so nothing was ended.\n"
        return agreed

    def answer(self, question: PlanQuestion) -> bool | None:
        """The person's answer to what a plan asks before its price, from any thread; None for Ctrl-C."""
        from tunesmith.agent.commands.first_look import look_through

        def look() -> None:
            look_through(self.store, Output(console=self.main_console()), question.rows_of)

        def asked() -> bool | None:
            return yes_or_no(question.text, self.ask, look if question.rows_of else None)

        # A plan's thread asks too, and the prompt is the main one's.
        in_main_thread = threading.current_thread() is threading.main_thread()
        return asked() if in_main_thread else self.from_thread(asked)

    def approver(self, plan: Plan, step: str) -> Decision:
        """Asks from the main thread. Ctrl-C in the grace leaves it undecided, as it does at the question itself."""
        from tunesmith.agent.commands.first_look import FirstLook

        self._asked_for = plan
        try:
            return FirstLook(self._approver, self.store, Output(console=self.main_console()))(plan, step)
        except KeyboardInterrupt:  # nobody decided: the step stays to be asked about
            raise pending(plan, step, "it was interrupted") from None
        finally:
            self._asked_for = None

    def has_questions(self) -> bool:
        """Whether a background thread waits for an answer."""
        return not self._questions.empty()

    def answer_questions(self) -> None:
        """Ask what the background threads want to know; each of them gets an answer, be it that there is none."""
        while self.has_questions():
            self._questions.get()()

    def from_thread(self, ask: Callable[[], T]) -> T:
        """Have the main thread ask, and wait for the answer. Raises what asking raised, EOFError for Ctrl-C."""
        return self._put(ask).result()

    def _put(self, ask: Callable[[], T]) -> Future[T]:
        answer: Future[T] = Future()

        def in_main_thread() -> None:
            try:
                answer.set_result(ask())
            except KeyboardInterrupt:  # raised in the thread that asked, it would end its event loop
                answer.set_exception(EOFError("nothing was decided"))
            except Exception as error:  # raised where it was asked for
                answer.set_exception(error)

        self._questions.put(in_main_thread)
        self.wake()
        return answer

    def enqueue(self, text: str) -> None:
        """Hold a turn on words that had to wait, as soon as the prompt is free; from any thread."""

        def handle_now() -> None:
            self.say(f"now to your words: {text}")
            self.handle(text)

        self.later(handle_now)

    def later(self, act: Callable[[], None]) -> None:
        """Do something in the main thread as soon as the prompt is free; what goes wrong is told in a line."""

        def act_or_report() -> None:
            try:
                act()
            except TunesmithError as error:
                self.say(f"tunesmith: {error}")

        self._put(act_or_report)

    def carries_a_plan(self) -> bool:
        """Whether a plan is being carried out, which says itself what is next."""
        return any(thread.is_alive() for thread in self.plans.values())

    # Plans in the background

    def start_plan(self, plan: PipelinePlan | None, resume_run: str | None = None) -> None:
        """Carry out a plan, or the rest of a run, in a thread; it asks at the prompt and tells its end there."""
        if self.carries_a_plan():
            raise BadInput("a plan is being carried out already; wait for it, or /stop its step")
        # Daemon: leaving waits for no plan; its step goes on in a worker, and `run --resume` does the rest.
        thread = threading.Thread(target=self._carry_out, args=(plan, resume_run), daemon=True)
        self.plans.clear()  # of threads that have ended; `run.started` puts this one in
        thread.start()

    def _carry_out(self, plan: PipelinePlan | None, resume_run: str | None) -> None:
        from tunesmith.agent.commands.summary import conclude, summary_view

        def ask(plan: Plan, step: str) -> Decision:
            return self.from_thread(lambda: self.approver(plan, step))

        before = {run.id for run in self.store.runs()}
        run = resume_run
        try:
            run = run_steps.plan_or_rest(self.ws, plan, resume_run, ask, self._show_prices)
        except TunesmithError as error:
            self.say(f"tunesmith: {error}")
            run = run or next((r.id for r in self.store.runs() if r.id not in before), None)
            if run and not (resume_run and isinstance(error, BadInput)):  # else it just said that it cannot
                self.say(f"/resume {run} goes on with it")
            return
        except Exception as error:  # of a thread: nobody else would hear of it
            self.say(f"tunesmith: {unexpected(error)}")
            return
        self.show(summary_view(conclude(self.store, run, self.say)))
        self.talk.plan_ended(run)

    def _show_prices(self, plan: PipelinePlan, prices: Sequence[Forecast]) -> None:
        self.show_once(forecast_table(plan.name, prices, plan.reasons))

    # Ends

    def _tell(self, step: Step) -> None:
        set_run_status(self.store, step.run, step.status)
        self.show(render.step_end(step))
        self.talk.ended(step)

    def _redraw(self) -> None:
        from prompt_toolkit.application import get_app_or_none

        app = get_app_or_none()
        if app:
            app.invalidate()

    def leave(self) -> None:
        """A word on what goes on without the REPL."""
        self.monitor.close()
        self.talk.close()
        for step in self.store.steps(status=RUNNING):
            self.say(f"{step.stage} ({step.id}) goes on without me; `tunesmith jobs attach {step.id}` follows it")
        for run, thread in self.plans.items():
            if thread.is_alive():
                self.say(f"the rest of {run} waits: `tunesmith run --resume {run}` goes on with it")


def _text(view: RenderableType) -> str:
    # Never shown: pages are compared, whatever the terminal's width was at the time.
    console = Console(file=io.StringIO(), width=200)
    with console.capture() as captured:
        console.print(view)
    return captured.get()


def _console() -> Console:
    # The main thread prints between prompts, right to the terminal. Another one prints while a prompt may be shown:
    # through sys.stdout of this moment, which prompt-toolkit puts above it.
    main = threading.current_thread() is threading.main_thread()
    return SafeConsole(file=sys.__stdout__ if main else sys.stdout, force_terminal=True, highlight=False)
