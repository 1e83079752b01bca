"""Commands that carry something out: one stage, a written plan, the demo. Each returns its exit code."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, NoReturn

from tunesmith.agent.commands import fields as request_fields
from tunesmith.agent.commands import render
from tunesmith.agent.commands.approvals import HashApprover, TerminalApprover, YesApprover, nobody, pending
from tunesmith.agent.commands.output import Output
from tunesmith.agent.commands.settings import Settings
from tunesmith.agent.commands.summary import conclude, summary_view
from tunesmith.memory.errors import ApprovalPending, BadInput, NotFound, StepFailed, TunesmithError
from tunesmith.memory.records import APPROVED, DONE, DRIVER_RUN, FAILED, PLANNED, RUNNING, WAITING, Step
from tunesmith.memory.store import Store
from tunesmith.tools.core.format import visible
from tunesmith.tools.core.stage import Plan
from tunesmith.tools.pipeline import catalog, executor, plan_file
from tunesmith.tools.pipeline.plan_file import ArcPlan
from tunesmith.tools.pipeline.progress import is_complete
from tunesmith.tools.pipeline.workspace import Approver, Decision, Workspace

LET_GO = 130
"""Exit code of a command that was interrupted: what it started goes on."""


def approver_of(args: argparse.Namespace) -> Approver:
    """Who decides, by the options of a command and by whether a terminal is there."""
    if getattr(args, "approve", None):
        return HashApprover(args.approve)
    if getattr(args, "yes", False):
        return YesApprover(getattr(args, "max_hours", None))
    return TerminalApprover(_ask) if sys.stdin.isatty() and sys.stderr.isatty() else nobody


def _ask(question: str) -> str:
    # input() would put the question on stdout, where only results belong.
    sys.stderr.write(visible(question))
    sys.stderr.flush()
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line


def stage(args: argparse.Namespace, rest: list[str], settings: Settings, store: Store, out: Output) -> int:
    """`tunesmith STAGE`: one step, from its price to its record."""
    ws = Workspace(store, settings.vllm, out.emit, settings.vllm_from)
    try:
        if args.approve:
            _refuse_fields(args, rest)
            ended = carry_out_pending(ws, args.command, args.approve)
        else:
            given = stage_fields(args, rest)
            run = open_run(ws, args.command, given)
            ended = in_run(ws, run, args.command, given, approver_of(args))
    except KeyboardInterrupt:
        out.let_go()
        out.say(_goes_on(store, out.step))
        return LET_GO
    out.document(step_document(store, ended), render.result_table(ended))
    return 0


def _refuse_fields(args: argparse.Namespace, rest: list[str]) -> None:
    """What was approved is the plan as it was shown: no field can be changed beside the yes. Raises BadInput."""
    flags = [name.removeprefix(request_fields.PREFIX) for name in vars(args) if name.startswith(request_fields.PREFIX)]
    given = [*(["--request"] if args.request else []), *(f"--{name}" for name in flags), *rest]
    if given:
        raise BadInput(
            f"--approve starts the plan as it was shown, so {given[0]} cannot be given beside it; "
            f"leave it out, or plan `tunesmith {args.command}` anew without --approve"
        )


def stage_fields(args: argparse.Namespace, rest: list[str]) -> dict[str, Any]:
    """The request's fields from its file and its flags, checked. Raises BadInput, naming the nearest right name."""
    model = catalog.BY_NAME[args.command].load().request
    given = request_fields.of_file(args.request) if args.request else {}
    given |= request_fields.of_flags(args, model) | request_fields.of_rest(rest)
    return plan_file.parse_fields(args.command, given)


def open_run(ws: Workspace, stage: str, given: dict[str, Any]) -> str:
    """The run to work in: the one that is named, else the newest; `base` opens one, for a run has one base."""
    named = given.pop("run", "")
    if named:
        return ws.store.run(named).id
    newest = ws.store.newest_run()
    role = given.get("role", "base") if stage == "base" else ""
    if role == "driver":
        executor.price(ws, "", stage, given)
        own = next((run for run in ws.store.runs() if run.name == DRIVER_RUN), None)
        return own.id if own else ws.store.new_run(DRIVER_RUN)
    opens = stage == "inspect" and not newest
    if role == "base":
        opens = not newest or _has_base(ws.store, newest.id)
    if opens:
        executor.price(ws, "", stage, given)  # what is refused opens no run
        return ws.store.new_run(Path(str(given.get("model", "bundled" if stage == "base" else stage))).name)
    if not newest:
        raise BadInput(f"there is no run yet to {stage} in; `tunesmith base` opens one")
    return newest.id


def _has_base(store: Store, run: str) -> bool:
    at_work = any(step.stage == "base" and step.status in (APPROVED, RUNNING) for step in store.steps(run))
    return at_work or bool(store.artifacts(run, "base"))


def in_run(ws: Workspace, run: str, stage: str, given: dict[str, Any], approver: Approver) -> Step:
    """Carry out one step; a run that follows no written plan stands where its newest step stands."""
    with standing(ws.store, run):
        return executor.perform(ws, run, stage, given, approver)


@contextmanager
def standing(store: Store, run: str) -> Iterator[None]:
    """Put a run where the step that is carried out here leaves it; what is refused leaves it where it was."""
    try:
        yield
    except StepFailed:
        stand(store, run, FAILED)
        raise
    except ApprovalPending:
        stand(store, run, WAITING)
        raise
    stand(store, run, DONE)


@contextmanager
def undecided(store: Store, run: str) -> Iterator[None]:
    """Let a run wait where the question about its step was not answered. Raises ApprovalPending on."""
    try:
        yield
    except ApprovalPending:
        not_started(store, run, WAITING)
        raise


def not_started(store: Store, run: str, status: str) -> None:
    """Put a run where a step that did not start leaves it, unless another step of it is at work."""
    if not store.steps(run, status=RUNNING):
        stand(store, run, status)


def stand(store: Store, run: str, status: str) -> None:
    """Put a run that follows no written plan where its newest step stands."""
    if store.steps(run) and not store.run(run).plan.get("steps"):
        store.set_run_status(run, status)


def carry_out_pending(ws: Workspace, stage: str, plan_hash: str) -> Step:
    """Approve and carry out the step that waits with this plan. Raises NotFound.

    Where it would be planned otherwise by now, the new plan is proposed in its place; raises ApprovalPending.
    """
    waiting = [s for s in ws.store.steps(status=PLANNED) if s.stage == stage and s.plan_hash.startswith(plan_hash)]
    if len(plan_hash) < 8 or not waiting:
        raise NotFound(f"no {stage} step waits with plan {plan_hash!r}; `tunesmith jobs list` shows those that wait")
    step = waiting[-1]
    now = executor.price(ws, step.run, stage, {k: v for k, v in step.request.items() if k != "run"})
    with standing(ws.store, step.run):
        if now.hash != step.plan_hash:
            _propose_instead(ws, step, now)
        stand(ws.store, step.run, RUNNING)
        ended = executor.resume(ws, step.id, HashApprover(step.plan_hash))
    if ws.store.run(step.run).plan.get("steps") and is_complete(ws.store, step.run):
        ws.store.set_run_status(step.run, DONE)
    return ended


def _propose_instead(ws: Workspace, step: Step, now: Plan) -> NoReturn:
    """Let the plan of today wait for a yes in the place of the approved one. Raises ApprovalPending."""
    changed = f"it would now be planned as {now.hash[:12]}, not {step.plan_hash[:12]}"
    price = Plan.model_validate(step.plan).estimate.model_dump(mode="json")
    ws.store.decide(step.id, "no", by="--approve", reason=changed, price=price)

    def ask(plan: Plan, step: str) -> Decision:
        raise pending(plan, step, changed)

    executor.decide(ws, executor.propose(ws, step.run, now), now, ask)
    raise AssertionError("nobody has said yes to this plan")


def step_document(store: Store, step: Step) -> dict[str, Any]:
    """An ended step as `--json` prints it."""
    from tunesmith.memory.questions import step_shape

    return {"run": step.run, **step_shape(store, step), "result": step.result}


def demo(args: argparse.Namespace, settings: Settings, store: Store, out: Output) -> int:
    """`tunesmith demo`: the bundled plan, from a model's download to its deployment."""
    return whole(demo_plan(fast=args.fast), args, settings, store, out)


def demo_plan(*, fast: bool) -> ArcPlan:
    """The bundled plan."""
    with as_file(files("tunesmith.prompts") / "demo" / ("plan-fast.yaml" if fast else "plan.yaml")) as path:
        return plan_file.load_arc(path)


def run(args: argparse.Namespace, settings: Settings, store: Store, out: Output) -> int:
    """`tunesmith run`: a written plan, or the rest of one."""
    if not args.plan and not args.resume:
        raise BadInput("run needs a PLAN.yaml, or --resume RUN to go on with one")
    plan = plan_file.load_arc(Path(args.plan)) if args.plan else None
    if args.resume:
        stored = stored_plan(store, args.resume)
        if plan is not None and plan != stored:
            raise BadInput(f"{args.plan} is not the plan of {args.resume}; leave it out to go on with {args.resume}")
        plan = stored
    return whole(plan, args, settings, store, out)


def stored_plan(store: Store, run: str) -> ArcPlan | None:
    """The written plan that a run follows; None where it was made stage by stage. Raises NotFound."""
    record = store.run(run)
    return ArcPlan.model_validate(record.plan) if record.plan.get("steps") else None


def plan_or_rest(ws: Workspace, plan: ArcPlan | None, run: str | None, approver: Approver) -> str:
    """Carry out a plan, or what is left of a run: of its plan, else its half-done step. The run's id."""
    if plan is not None:
        return executor.run_arc(ws, plan, approver, resume_run=run)
    assert run is not None
    with standing(ws.store, run):
        executor.go_on(ws, run, approver)
    return run


def whole(plan: ArcPlan | None, args: argparse.Namespace, settings: Settings, store: Store, out: Output) -> int:
    """Carry out a plan, then tell what came of it: always a `done` event, and a report where there is one to write."""

    def emit(event: str, **data: Any) -> None:
        out.emit(event, **data)
        if event == "run.started" and plan is not None and not data["resumed"]:
            _show_price(ws, plan, out)

    ws = Workspace(store, settings.vllm, emit, settings.vllm_from)
    known = getattr(args, "resume", None)
    before = {r.id for r in store.runs()}
    exit_code = 1
    try:
        known = plan_or_rest(ws, plan, known, approver_of(args))
        exit_code = 0
    except TunesmithError as error:
        exit_code = error.exit_code
        out.failed(str(error), exit_code)
        out.say(str(error))
    except KeyboardInterrupt:
        out.let_go()
        exit_code = LET_GO
    run_id = known or next((r.id for r in store.runs() if r.id not in before), None)
    _conclude(store, run_id, exit_code, out)
    return exit_code


def _show_price(ws: Workspace, plan: ArcPlan, out: Output) -> None:
    """The price of the whole plan, before its first step; every step is priced again when its turn comes."""
    from tunesmith.tools.pipeline.forecast import forecast

    prices = forecast(ws, plan)
    seconds = sum(price.estimate.seconds for price in prices if price.estimate)
    priced = [{"stage": p.stage, "estimated_seconds": p.estimate.seconds if p.estimate else None} for p in prices]
    out.emit("plan.priced", name=plan.name, estimated_seconds=seconds, steps=priced)
    out.console.print(render.forecast_table(plan.name, prices))


def _goes_on(store: Store, step: str) -> str:
    if step and store.step(step).status == RUNNING:
        return f"let go of {step}; it goes on, and `tunesmith jobs attach {step}` follows it"
    return "interrupted; nothing is at work"


def _conclude(store: Store, run: str | None, exit_code: int, out: Output) -> None:
    if run is None:
        out.emit("done", run=None, status="failed", exit_code=exit_code)
        return
    if exit_code == LET_GO:
        out.say(f"{_goes_on(store, out.step)}; `tunesmith run --resume {run}` does the rest of {run}")
    elif exit_code:
        out.say(f"`tunesmith run --resume {run}` goes on where {run} stopped")
    summary = conclude(store, run, out.say)
    out.emit("done", exit_code=exit_code, **summary.to_json())
    if not out.as_json or out.console.is_terminal:
        out.document(summary.to_json(), summary_view(summary))
