"""`tunesmith -p "TEXT"`: one turn of the conversation for scripts, its events as they happen, its exit code the answer.

A step that it starts is followed to its end. Without `--yes` nothing expensive starts: the turn ends with exit code 3
and the step that waits, which `tunesmith STAGE --approve HASH` or `tunesmith run --resume RUN --yes` carries out.
"""

from __future__ import annotations

import argparse
from concurrent.futures import Future

from tunesmith.agent.commands import run_steps
from tunesmith.agent.commands.approvals import YesApprover
from tunesmith.agent.commands.ask import piped_in
from tunesmith.agent.commands.first_look import FirstLook
from tunesmith.agent.commands.output import Output
from tunesmith.agent.commands.settings import Settings
from tunesmith.agent.driver.abilities import known
from tunesmith.agent.driver.chat import Cancelled, Chat
from tunesmith.agent.driver.endpoint import Driver, DriverMissing, driver_state, model_of
from tunesmith.agent.driver.turn_deps import TurnDeps, is_lasting
from tunesmith.agent.driver.voice import Reply
from tunesmith.agent.repl.command_table import COMMANDS
from tunesmith.memory.errors import ApprovalPending, BadInput, StepFailed, TunesmithError
from tunesmith.memory.store import Store
from tunesmith.tools.core.format import visible
from tunesmith.tools.evaluation.ask_message import read_message
from tunesmith.tools.pipeline import catalog, executor
from tunesmith.tools.pipeline.plan_file import PipelinePlan
from tunesmith.tools.pipeline.run_step import run_step
from tunesmith.tools.pipeline.workspace import Approver, StepRequest, Workspace
from tunesmith.tools.serving.endpoint import Endpoint

FETCH = StepRequest("base", {"model": "bundled-driver", "role": "driver"})
"""The step that brings the bundled driver here."""


def oneshot(args: argparse.Namespace, settings: Settings, store: Store, out: Output) -> int:
    """Hold one turn and return the exit code of what it came to. Raises BadInput for no words at all."""
    if not args.prompt.strip():
        raise BadInput("-p needs words, such as -p 'how did the last run go?'")
    prompt = read_message(piped_in() if args.prompt == "-" else args.prompt)
    if (command := prompt.split()[0]).startswith("/") and command[1:] in {*catalog.BY_NAME, *COMMANDS}:
        raise BadInput(
            f"-p takes words, and {command} belongs to the conversation's prompt; `tunesmith --help` lists those here"
        )
    approver = run_steps.approver_of(args, out)
    ws = run_steps.workspace_of(args, settings, store, out)
    turn = _Turn(ws, approver, settings, out)
    try:
        exit_code = turn.hold(prompt)
    except TunesmithError as error:
        out.failed(str(error), error.exit_code)
        out.say(str(error))
        exit_code = error.exit_code
    finally:
        turn.driver.close()
    out.done(exit_code, {"conversation": turn.chat.id if turn.chat else None})
    return exit_code


class _Turn:
    """What one `-p` works with."""

    def __init__(self, ws: Workspace, approver: Approver, settings: Settings, out: Output) -> None:
        self.ws, self.approver, self.settings, self.out = ws, approver, settings, out
        self.looking_first = FirstLook(approver, ws.store, out)
        self.driver = Driver(settings)
        self.chat: Chat | None = None
        self._pending: ApprovalPending | None = None
        self._failed: TunesmithError | None = None

    def hold(self, prompt: str) -> int:
        """Answer one prompt; 0. Raises what the step that it started, or the call that it ended with, came to."""
        deps = TurnDeps(
            ws=self.ws,
            approver=self.looking_first,
            show=self.out.console.print,
            start_pipeline=self._carry_out,
            follow=True,
            agreed_before=isinstance(self.approver, YesApprover),
            endpoint=self._endpoint,
            known=lambda: known(self.driver),
            driver_state=lambda: driver_state(self.settings),
        )
        self.chat = Chat(deps)
        if line := self.chat.open_description():
            self.out.say(line)
        future = self.chat.begin(prompt, lambda: model_of(self._endpoint()), lambda sentence: None)
        self._tell(deps, future)
        wrong = deps.error
        if deps.draft is not None and wrong is None:
            self._carry_out(deps.draft)
        if self._pending:
            raise self._pending
        if self._failed:
            raise self._failed
        if wrong:
            raise wrong
        return 0

    def _tell(self, deps: TurnDeps, future: Future[Reply]) -> None:
        """Tell the answer. A driver that broke off behind a failed step or a refused gate hides neither."""
        try:
            reply = self._wait(future)
        except StepFailed as broken:
            if not is_lasting(deps.error):
                raise
            self.out.say(str(broken))
            return
        self.out.emit("message", text=reply.text, left_out=list(reply.left_out))
        if not self.out.as_json:
            print(visible(reply.text))

    def _endpoint(self) -> Endpoint:
        last_notice = -1

        def waiting(seconds: float) -> None:
            nonlocal last_notice
            if seconds // 10 > last_notice:  # it is called several times a second
                last_notice = int(seconds // 10)
                self.out.say(f"the driver is starting ({seconds:.0f} s)")

        try:
            return self.driver.ensure(waiting)
        except DriverMissing:
            run_step(self.ws, FETCH, self.approver).done()
            return self.driver.ensure(waiting)

    def _wait(self, future: Future[Reply]) -> Reply:
        assert self.chat is not None
        try:
            return future.result()
        except KeyboardInterrupt:  # also what it waits for is let go
            self.chat.cancel()
            raise
        except Cancelled:
            raise KeyboardInterrupt from None

    def _carry_out(self, plan: PipelinePlan) -> str:
        """Carry out a whole plan here and now; what the driver is told of it."""
        try:
            run = executor.run_pipeline(self.ws, plan, self.looking_first)
        except ApprovalPending as pending:
            self._pending = pending
            return f"not started: {pending}"
        except TunesmithError as error:
            self._failed = error
            return f"stopped: {error}"
        from tunesmith.agent.commands.summary import conclude

        summary = conclude(self.ws.store, run, self.out.say)
        compared = "; ".join(" → ".join(comparison.arms) for comparison in summary.comparisons)
        return f"{run} is done: {compared}"
