"""One step, whoever asks for it: priced once, decided once, and what came of it in one object."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.tiny_model import make_tiny_model
from tunesmith.agent.commands.approvals import HashApprover
from tunesmith.memory.errors import ApprovalPending, BadInput, StepFailed
from tunesmith.memory.records import DECLINED, DONE, FAILED, PLANNED, WAITING
from tunesmith.memory.store import Store
from tunesmith.tools.core.stage import Plan
from tunesmith.tools.pipeline import executor, forecast
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


def answers(*given: Decision | Exception) -> Callable[[Plan, str], Decision]:
    left = list(given)

    def approver(plan: Plan, step: str) -> Decision:
        answer = left.pop(0)
        if isinstance(answer, Exception):
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
    (step,) = ws.store.steps("r1")
    assert (step.request["run"], step.plan["run"]) == ("r1", "r1")
    assert Plan.model_validate(step.plan).hash == step.plan_hash == price(ws, StepRequest.of(step)).hash


def test_every_edit_is_a_question_of_its_own(ws: Workspace, base: StepRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    priced = counted(monkeypatch, way, "quote")
    outcome = run_step(ws, base, answers(Edited({"role": "teacher"}), NO))
    assert len(priced) == 2 and outcome.step.request["role"] == "teacher"
    assert [step.status for step in ws.store.steps()] == [DECLINED, DECLINED]


def test_what_is_refused_opens_no_run(ws: Workspace) -> None:
    with pytest.raises(BadInput):
        run_step(ws, StepRequest("base", {"model": "/gone"}), answers(YES))
    assert ws.store.runs() == []


def test_the_answer_travels_with_the_step(ws: Workspace, base: StepRequest) -> None:
    refused = run_step(ws, base, answers(NO))
    assert refused.decision == NO and refused.step.status == DECLINED and ws.store.run("r1").status == FAILED
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
    assert [step.status for step in ws.store.steps(run)] == [DECLINED, PLANNED] and ws.store.run(run).status == WAITING


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
