"""Commands that carry something out: one stage, a written plan, the demo. Each returns its exit code."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib.resources import as_file, files
from typing import Any

from tunesmith.agent.commands import fields as request_fields
from tunesmith.agent.commands import render
from tunesmith.agent.commands.approvals import HashApprover, TerminalApprover, YesApprover, nobody, yes_or_no
from tunesmith.agent.commands.layout import prose
from tunesmith.agent.commands.output import Output
from tunesmith.agent.commands.price import forecast_table, price_page
from tunesmith.agent.commands.settings import Settings
from tunesmith.agent.commands.summary import conclude, summary_view
from tunesmith.agent.commands.terminal import SafeConsole
from tunesmith.memory.errors import ApprovalPending, BadInput, GateRefused, NotFound, TunesmithError
from tunesmith.memory.records import ABANDONED, DONE, PLANNED, RUNNING, Step
from tunesmith.memory.store import Store
from tunesmith.tools.core.field_names import our_names
from tunesmith.tools.core.format import visible
from tunesmith.tools.core.local_paths import expanded, is_there
from tunesmith.tools.core.stage import PlanQuestion
from tunesmith.tools.pipeline import catalog, executor, plan_file
from tunesmith.tools.pipeline.forecast import Forecast
from tunesmith.tools.pipeline.plan_file import PipelinePlan
from tunesmith.tools.pipeline.run_step import current_plan, run_pending, run_step
from tunesmith.tools.pipeline.workspace import Approver, StepRequest, Workspace

LET_GO = 130
"""Exit code of a command that was interrupted (128 + SIGINT, as shells have it): what it started goes on."""


def approver_of(args: argparse.Namespace, out: Output) -> Approver:
    """Who decides, by the options of a command and by whether a terminal is there."""
    if getattr(args, "approve", None) is not None:
        return HashApprover(args.approve)
    if getattr(args, "yes", False):
        return YesApprover(getattr(args, "max_hours", None))  # not every command has it
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return nobody
    out.asks_a_person = True
    return TerminalApprover(ask_person, lambda plan, step: out.console.print(price_page(plan, step)))


def workspace_of(args: argparse.Namespace, settings: Settings, store: Store, out: Output) -> Workspace:
    """Where a command's steps are carried out; what a plan asks is answered by whoever its price is answered by."""
    from tunesmith.agent.commands.first_look import look_through

    approver = approver_of(args, out)

    def ask(question: PlanQuestion) -> bool | None:
        if isinstance(approver, TerminalApprover):
            look = partial(look_through, store, out, question.rows_of) if question.rows_of else None
            return yes_or_no(question.text, ask_person, look)
        if not isinstance(approver, YesApprover) or not question.cautious:
            return None
        set_ = ", ".join(f"{name}={value}" for name, value in question.yes.items())
        out.say(f"{question.text} --yes says yes: {set_}")
        return True

    return settings.workspace(store, out.emit, ask)


def _looking_first(args: argparse.Namespace, store: Store, out: Output) -> Approver:
    """Who decides, and before that sees the rows that would be trained on."""
    from tunesmith.agent.commands.first_look import FirstLook

    approver = approver_of(args, out)
    return FirstLook(approver, store, out, ask_person if isinstance(approver, TerminalApprover) else None)


def ask_person(question: str) -> str:
    """A line from who sits at the terminal. Raises EOFError at the end of it."""
    # input() would put the question on stdout, where only results belong.
    remark, _, question = question.rpartition("\n")
    if remark:
        SafeConsole(stderr=True).print(prose(remark))
    sys.stderr.write(visible(question))
    sys.stderr.flush()
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line


def stage(args: argparse.Namespace, rest: list[str], settings: Settings, store: Store, out: Output) -> int:
    """`tunesmith STAGE`: one step, from its price to its record."""
    ws = workspace_of(args, settings, store, out)
    if catalog.BY_NAME[args.command].only_looks and args.approve is None:
        seen = look(ws, stage_request(args, rest, store))
        out.document(seen, render.result_table(seen["result"]))
        return 0
    try:
        if args.approve is not None:
            _refuse_fields(args, rest)
            waiting = waiting_step(store, args.command, args.approve)
            ended = run_pending(ws, waiting, HashApprover(current_plan(waiting).hash)).done()
        else:
            ended = run_step(ws, stage_request(args, rest, store), _looking_first(args, store, out)).done()
    except KeyboardInterrupt:  # only the watching ends: the step goes on
        return interrupted(store, out)
    out.document(step_document(store, ended), render.result_table(ended.report))
    return 0


def look(ws: Workspace, request: StepRequest) -> dict[str, Any]:
    """Carry out a stage that only looks: shown to who asks, and no step of any run; as `--json` prints it, a step's
    document without a step."""
    from tunesmith.tools.pipeline import inspect_job, there

    if there.is_there(request.fields):
        seen = dict(there.seen(ws.store.home, ws.ray).report)
    else:
        seen = inspect_job.look(ws, request.run).model_dump(mode="json")
    document = {"run": request.run or None, "step": None, "stage": request.stage, "status": DONE, "approval": None}
    return {**document, "artifacts": [], "result": seen}


def interrupted(store: Store, out: Output) -> int:
    """Say that what was started goes on; the exit code for that."""
    out.let_go()
    out.say(_goes_on(store, out.step))
    return LET_GO


def _refuse_fields(args: argparse.Namespace, rest: list[str]) -> None:
    """What was approved is the plan as it was shown: no field can be changed beside the yes. Raises BadInput."""
    flags = [name.removeprefix(request_fields.PREFIX) for name in vars(args) if name.startswith(request_fields.PREFIX)]
    given = [*(["--request"] if args.request is not None else []), *(f"--{name}" for name in flags), *rest]
    if given:
        raise BadInput(
            f"--approve starts the plan as it was shown, so {given[0]} cannot be given beside it; "
            f"leave it out, or plan `tunesmith {args.command}` anew without --approve"
        )


def stage_request(args: argparse.Namespace, rest: list[str], store: Store) -> StepRequest:
    """The request in a file and flags, its fields checked. Raises BadInput, naming the nearest right name."""
    from tunesmith.agent.commands.served_models import to_serve

    model = catalog.BY_NAME[args.command].load().request
    given = request_fields.of_file(args.request) if args.request is not None else {}
    if hasattr(args, "what"):  # of `serve WHAT`
        given = to_serve(store, args.what) | given
    written = our_names(given, model.model_fields)
    typed = request_fields.of_flags(args, model) | request_fields.of_rest(rest, model)
    flags = our_names(typed, model.model_fields, request_fields.spelled(args))
    request = StepRequest.given(args.command, written.fields | flags.fields, written.typed | flags.typed)
    return replace(request, notices=tuple(dict.fromkeys([*written.notes, *flags.notes, *request.notices])))


def waiting_step(store: Store, stage: str, plan_hash: str) -> Step:
    """The step of a stage that waits for a yes to the plan with this hash, or its beginning. Raises NotFound."""
    priced = [s for s in store.priced_steps() if s.stage == stage and s.plan_hash.startswith(plan_hash)]
    waiting = [step for step in priced if step.status == PLANNED]
    if len(plan_hash) < 8 or not waiting:  # a yes has to name one plan: fewer letters may fit another by chance
        gone = len(plan_hash) >= 8 and any(step.status == ABANDONED for step in priced)
        why = f"; its run has gone on since, so `tunesmith {stage}` plans it anew" if gone else ""
        raise NotFound(
            f"no {stage} step waits with plan {plan_hash!r}{why}; `tunesmith jobs list` shows those that wait"
        )
    return waiting[-1]


def step_document(store: Store, step: Step) -> dict[str, object]:
    """An ended step as `--json` prints it."""
    from tunesmith.memory.questions import step_shape

    return {"run": step.run, **step_shape(store, step), "result": step.result}


def demo(args: argparse.Namespace, settings: Settings, store: Store, out: Output) -> int:
    """`tunesmith demo`: the bundled plan, from a model's download to its deployment.

    A gate that refuses what was trained has done its work, so that is an end too: 0, and the gate's sentence.
    """
    return whole(demo_plan(fast=args.fast), args, settings, store, out, may_be_refused=True)


def demo_plan(*, fast: bool) -> PipelinePlan:
    """The bundled plan."""
    with as_file(files("tunesmith.prompts") / "demo" / ("plan-fast.yaml" if fast else "plan.yaml")) as path:
        return plan_file.load_pipeline(path)


def run(args: argparse.Namespace, settings: Settings, store: Store, out: Output) -> int:
    """`tunesmith run`: a written plan, or the rest of one."""
    if args.plan is None and args.resume is None:
        raise BadInput("run needs a PLAN.yaml, or --resume RUN to go on with one")
    plan = written_plan(args.plan, store, out.say) if args.plan is not None else None
    if args.resume is True:  # --resume alone; an empty name is one that no run has
        args.resume = newest_run(store)
        out.say(f"{args.resume}, the newest run")
    if args.resume is not None:
        stored = stored_plan(store, args.resume)
        if plan is not None and not (stored and plan_file.same_plan(plan, stored)):
            raise BadInput(f"{args.plan} is not the plan of {args.resume}; leave it out to go on with {args.resume}")
        plan = stored
    return whole(plan, args, settings, store, out)


def written_plan(name: str, store: Store, say: Callable[[str], None]) -> PipelinePlan:
    """The plan in a file. Raises BadInput, NotFound; for a run's name with what may be done with a run."""
    if not is_there(name) and any(run.id == name for run in store.runs()):
        raise NotFound(
            f"{name} is a run, no plan file: `tunesmith resume {name}` goes on with it, "
            f"`tunesmith show {name}` shows it"
        )
    if not name:
        raise BadInput("'' is no plan file; name one, such as plan.yaml")
    return plan_file.load_pipeline(expanded(name), say)


def newest_run(store: Store) -> str:
    """The newest run. Raises NotFound where there is none yet."""
    newest = store.newest_run()
    if newest is None:
        raise NotFound("there is no run yet; `tunesmith demo` makes one, `tunesmith teach FILE` one of your own")
    return newest.id


def stored_plan(store: Store, run: str) -> PipelinePlan | None:
    """The written plan that a run follows; None where it was made stage by stage. Raises NotFound."""
    record = store.run(run)
    return PipelinePlan.model_validate(record.plan) if record.plan.get("steps") else None


def plan_or_rest(
    ws: Workspace, plan: PipelinePlan | None, run: str | None, approver: Approver, show_prices: executor.ShowPrices,
    on: str = "",
) -> str:  # fmt: skip
    """Carry out a plan, or what is left of a run: of its plan, else its half-done step. The run's id."""
    if plan is not None:
        return executor.run_pipeline(ws, plan, approver, resume_run=run, show_prices=show_prices, on=on)
    assert run is not None
    executor.go_on(ws, run, approver, on=on).done()
    return run


def whole(
    plan: PipelinePlan | None, args: argparse.Namespace, settings: Settings, store: Store, out: Output,
    *, beside: Mapping[str, object] | None = None, may_be_refused: bool = False,
) -> int:  # fmt: skip
    """Carry out a plan, then tell what came of it: always a `done` event, and a report where there is one to write.

    A command that prints one document puts `beside` into it. Where the model `may_be_refused`, its gate's refusal is an
    outcome like any other, with exit code 0 and `gate_refused` in the `done` event.
    """
    ws = workspace_of(args, settings, store, out)
    known = getattr(args, "resume", None)
    before = {r.id for r in store.runs()}
    exit_code = 1
    outcome: dict[str, object] = dict(beside or {})
    try:
        approver, on = _looking_first(args, store, out), getattr(args, "on", "")  # not every command has it
        known = plan_or_rest(ws, plan, known, approver, partial(_show_prices, out), on)
        exit_code = 0
    except TunesmithError as error:
        exit_code = 0 if may_be_refused and isinstance(error, GateRefused) else error.exit_code
        if not exit_code:
            out.let_go()
            outcome["gate_refused"] = str(error)
        elif out.stream:
            out.failed(str(error), exit_code)
        else:
            out.let_go()
            waiting = out.pending if exit_code == ApprovalPending.exit_code else {}
            outcome = {**waiting, "pending_plan": waiting.get("plan"), **outcome, "message": str(error)}
        out.say(str(error) if exit_code else f"the gate refused, so nothing is served: {error}")
    except KeyboardInterrupt:  # of the watching: the step at work goes on
        out.let_go()
        exit_code = LET_GO
    run_id = known or next((r.id for r in store.runs() if r.id not in before), None)
    # not every command has it
    _conclude(store, run_id, exit_code, out, outcome, resumed=getattr(args, "resume", None) is not None)
    return exit_code


def _show_prices(out: Output, plan: PipelinePlan, prices: Sequence[Forecast]) -> None:
    """The price of the whole plan, before its first step; every step is priced again when its turn comes."""
    seconds = sum(price.estimate.seconds for price in prices if price.estimate)
    priced = [{"stage": p.stage, "estimated_seconds": p.estimate.seconds if p.estimate else None} for p in prices]
    out.emit("plan.priced", name=plan.name, estimated_seconds=seconds, steps=priced)
    out.console.print(forecast_table(plan.name, prices, plan.reasons))


def _goes_on(store: Store, step: str) -> str:
    if step and store.step(step).status == RUNNING:
        return f"let go of {step}; it goes on, and `tunesmith jobs attach {step}` follows it"
    return "interrupted; nothing is at work"


def _conclude(
    store: Store, run: str | None, exit_code: int, out: Output, outcome: Mapping[str, object], *, resumed: bool
) -> None:
    if run is None:
        out.done(exit_code, {"run": None, "status": "failed"})
        if not out.stream:
            message = str(outcome.get("message", ""))
            out.document({**outcome, "run": None, "status": "failed", "exit_code": exit_code}, render.plain(message))
        return
    if exit_code == LET_GO:
        out.say(f"{_goes_on(store, out.step)}; `tunesmith run --resume {run}` does the rest of {run}")
    elif exit_code and not (resumed and exit_code == BadInput.exit_code):  # no advice to type what was just refused
        out.say(f"`tunesmith run --resume {run}` goes on where {run} stopped")
    summary = conclude(store, run, out.say)
    out.done(exit_code, {**outcome, **summary.to_json()})
    if not out.as_json or not out.stream or out.console.is_terminal:
        out.document({**outcome, **summary.to_json(), "exit_code": exit_code}, summary_view(summary))
