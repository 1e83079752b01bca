"""One step, whoever asks for it: priced once, decided once, and what came of it in one object."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.tiny_model import make_tiny_model
from tunesmith.agent.commands.approvals import HashApprover
from tunesmith.memory.errors import ApprovalPending, BadInput, Declined, GateRefused, StepFailed
from tunesmith.memory.records import DECLINED, DONE, FAILED, PLANNED, WAITING
from tunesmith.memory.store import Store
from tunesmith.tools.core.stage import Plan, PlanQuestion
from tunesmith.tools.pipeline import executor, forecast, start_step, worker
from tunesmith.tools.pipeline import run_step as way
from tunesmith.tools.pipeline.plan_file import PipelinePlan, StepSpec
from tunesmith.tools.pipeline.run_step import price, propose, run_pending, run_step
from tunesmith.tools.pipeline.workspace import Decision, Edited, StepRequest, Workspace

pytestmark = pytest.mark.heavy

YES, NO = Decision(True, "test"), Decision(False, "test", "too slow for tonight")


@pytest.fixture
def ws(tmp_path: Path) -> Workspace:
    return Workspace(Store(tmp_path / "home"), None, lambda event, **data: None)


@pytest.fixture
def base(tmp_path: Path) -> StepRequest:
    return StepRequest("base", {"model": str(make_tiny_model(tmp_path / "tiny"))})


def answers(*given: Decision | BaseException) -> Callable[[Plan, str], Decision]:
    left = list(given)

    def approver(plan: Plan, step: str) -> Decision:
        answer = left.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    return approver


def counted(monkeypatch: pytest.MonkeyPatch, module: Any, name: str) -> list[Any]:
    """Calls of a function, which goes on doing what it does."""
    calls, real = [], getattr(module, name)

    def call(*args: Any, **kwargs: Any) -> Any:
        calls.append(args)
        return real(*args, **kwargs)

    monkeypatch.setattr(module, name, call)
    return calls


def test_a_question_is_priced_once_though_its_run_is_opened_for_it(
    ws: Workspace, base: StepRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    priced = counted(monkeypatch, way, "quote")
    assert run_step(ws, base, answers(NO)).declined and len(priced) == 1
    (step,) = ws.store.priced_steps("r1")
    assert (step.request["run"], step.plan["run"]) == ("r1", "r1")
    assert Plan.model_validate(step.plan).hash == step.plan_hash == price(ws, StepRequest.of(step)).hash


def test_every_edit_is_a_question_of_its_own(ws: Workspace, base: StepRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    priced = counted(monkeypatch, way, "quote")
    outcome = run_step(ws, base, answers(Edited({"role": "teacher"}), NO))
    assert len(priced) == 2 and outcome.step.request["role"] == "teacher"
    assert [step.status for step in ws.store.priced_steps()] == [DECLINED, DECLINED]


def test_what_is_refused_opens_no_run(ws: Workspace) -> None:
    with pytest.raises(BadInput):
        run_step(ws, StepRequest("base", {"model": "/gone"}), answers(YES))
    assert ws.store.runs() == []


def test_the_answer_travels_with_the_step(ws: Workspace, base: StepRequest) -> None:
    refused = run_step(ws, base, answers(NO))
    assert refused.decision == NO and refused.step.status == DECLINED and ws.store.run("r1").status == WAITING
    assert ws.store.runs() == [], "nothing of it began"
    with pytest.raises(StepFailed, match="too slow for tonight"):
        refused.done()
    done = run_step(ws, base, answers(YES))
    assert done.decision == YES and done.done().status == DONE and ws.store.run("r1").status == DONE


def test_what_nobody_decided_waits_and_its_hash_starts_it(ws: Workspace, base: StepRequest) -> None:
    with pytest.raises(ApprovalPending):
        run_step(ws, base, answers(ApprovalPending("nobody is there")))
    (waiting,) = ws.store.steps(status=PLANNED)
    assert ws.store.run("r1").status == WAITING
    outcome = run_pending(ws, waiting, HashApprover(waiting.plan_hash))
    assert outcome.done().id == waiting.id and ws.store.run("r1").status == DONE


def test_a_plan_that_is_another_one_by_now_is_asked_about_anew(ws: Workspace, base: StepRequest) -> None:
    run = ws.store.new_run("r")
    waiting = propose(ws, price(ws, StepRequest("base", base.fields, run)))
    (Path(str(base.fields["model"])) / "README.md").write_bytes(bytes(50_000_000))
    with pytest.raises(ApprovalPending, match="it would now be planned as"):
        run_pending(ws, ws.store.step(waiting), HashApprover(ws.store.step(waiting).plan_hash))
    assert [step.status for step in ws.store.priced_steps(run)] == [DECLINED, PLANNED]


def test_a_step_whose_memory_others_hold_is_priced_with_a_note_and_says_so_before_it_starts(
    ws: Workspace, base: StepRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = way.machine_for_a_step(ws.store.home)
    need = price(ws, base).estimate.peak_ram_bytes
    assert need and not any("other programs" in note for note in price(ws, base).notes)
    held = replace(here, ram_total_bytes=need + (64 << 30), ram_free_bytes=need - 1, swap_free_bytes=0)
    for module in (way, way.driver_eviction):
        monkeypatch.setattr(module, "machine_for_a_step", lambda home: held)
    launched = counted(monkeypatch, start_step.launcher, "launch")
    [note] = (note for note in price(ws, base).notes if "other programs" in note)
    assert "of RAM and swap" in note and "free; try stopping another program before it starts" in note
    with pytest.raises(StepFailed, match="free; try stopping another program, then `tunesmith run --resume`"):
        run_step(ws, base, answers(YES))
    assert not launched and ws.store.run("r1").status == FAILED
    monkeypatch.setattr(way.driver_eviction, "machine_for_a_step", lambda home: replace(held, ram_free_bytes=need))
    [step] = ws.store.steps("r1")
    assert way.resume_step(ws, step.id, answers(YES)).done().id == step.id and len(launched) == 1


def test_a_plan_is_forecast_once(ws: Workspace, base: StepRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    forecasts, shown = counted(monkeypatch, forecast, "forecast"), []
    plan = PipelinePlan(name="p", steps=(StepSpec(stage="base", fields=dict(base.fields)),))
    executor.run_pipeline(ws, plan, answers(YES), show_prices=lambda plan, prices: shown.append(prices))
    assert len(forecasts) == len(shown) == 1 and [price.stage for price in shown[0]] == ["base"]


def test_a_step_that_completes_its_plan_by_itself_completes_the_run(ws: Workspace, base: StepRequest) -> None:
    plan = PipelinePlan(name="p", steps=(StepSpec(stage="base", fields=dict(base.fields)),))
    with pytest.raises(ApprovalPending):
        executor.run_pipeline(ws, plan, answers(ApprovalPending("nobody is there")))
    (waiting,) = ws.store.steps(status=PLANNED)
    run_pending(ws, waiting, HashApprover(waiting.plan_hash)).done()
    assert ws.store.run("r1").status == DONE


def test_a_price_leaves_the_run_as_it_was_whatever_becomes_of_it(ws: Workspace, base: StepRequest) -> None:
    run_step(ws, base, answers(YES)).done()
    again = StepRequest("base", {**base.fields, "role": "teacher"}, "r1")
    for answer in (ApprovalPending("nobody is there"), KeyboardInterrupt()):
        with pytest.raises(type(answer)):
            run_step(ws, again, answers(answer))
    assert run_step(ws, again, answers(Edited({"role": "base"}), NO)).declined
    assert ws.store.run("r1").status == DONE and [step.id for step in ws.store.steps("r1")] == ["s1"]
    assert ws.store.steps(status=PLANNED) == [], "one was interrupted, and newer prices took the place of the others"


def test_a_step_that_begins_goes_past_what_should_have_come_before(ws: Workspace, base: StepRequest) -> None:
    run_step(ws, base, answers(YES)).done()
    passed = [ws.store.propose("r1", stage, plan_hash=stage) for stage in ("generate", "critique", "base")]
    open_ = [ws.store.propose("r1", stage, plan_hash=stage) for stage in ("baseline", "evaluate", "deploy", "train")]
    begun = ws.store.step(ws.store.propose("r1", "train", arm="adapter", plan_hash="t"))
    start_step._go_past(ws, begun)
    assert [step.id for step in ws.store.steps(status=PLANNED)] == [*open_, begun.id]
    assert {ws.store.step(step).status for step in passed} == {"abandoned"}


@pytest.mark.parametrize("answer", [True, False, None])
def test_what_a_plan_asks_is_asked_before_its_price(
    ws: Workspace, base: StepRequest, answer: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    question, asked = PlanQuestion(text="take it for the teacher?", yes={"role": "teacher"}), []
    real = way.quote

    def asks(ws: Workspace, request: StepRequest) -> Plan:
        plan = real(ws, request)
        return plan if "role" in request.fields else plan.model_copy(update={"questions": (question,)})

    monkeypatch.setattr(way, "quote", asks)
    ws = replace(ws, ask=lambda question: asked.append(question.text) or answer)
    run_step(ws, base, answers(YES)) if answer is not False else None
    if answer is False:
        with pytest.raises(Declined, match=r"nothing was started, as the answer was no to: take it for the teacher\?"):
            run_step(ws, base, answers())
        assert ws.store.priced_steps() == [] and ws.store.runs() == []
    else:
        (step,) = ws.store.steps()
        assert step.request["role"] == ("teacher" if answer else "base")
    events = ws.store.read("SELECT data FROM events WHERE event = 'question.answered'")
    assert asked == ["take it for the teacher?"] and len(events) == (answer is not None)


def test_a_gate_that_refuses_ends_a_plan_and_a_no_leaves_it_waiting(
    ws: Workspace, base: StepRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = PipelinePlan(name="p", steps=(StepSpec(stage="inspect"), StepSpec(stage="base", fields=dict(base.fields))))
    with pytest.raises(Declined):
        executor.run_pipeline(ws, plan, answers(NO))
    assert ws.store.run("r1").status == WAITING and str(ws.store.step_counts("r1")) == "1 of 2"

    def refuse(*_: object) -> None:
        raise GateRefused("base: the general block got worse")

    monkeypatch.setattr(executor, "continue_step", refuse)
    with pytest.raises(GateRefused):
        executor.run_pipeline(ws, plan, answers(), resume_run="r1")
    assert ws.store.status_words(ws.store.run("r1")) == "done, not based: the gate refused"


def test_a_free_step_that_its_disk_ended_failed_as_any_step_and_is_no_defect(
    ws: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(ws.store.home / "x"))

    monkeypatch.setattr(worker, "work", full)
    run = ws.store.new_run("test")
    with pytest.raises(StepFailed, match=r"^inspect \(s1\) failed: the disk of .* is full"):
        run_step(ws, StepRequest("inspect", {}, run), answers(YES))
    (step,) = ws.store.steps(run)
    assert step.status == FAILED and "is full" in str(step.error)
