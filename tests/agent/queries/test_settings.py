"""Questions about the history, answered from the store: which value was used, and who chose it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.stored_runs import Builder, digest
from tunesmith.agent.queries.answer import Context
from tunesmith.agent.queries.settings import SettingQuery, answer
from tunesmith.memory.store import Store
from tunesmith.tools.pipeline.workspace import Workspace

PLAN = {"steps": [{"stage": "train", "fields": {"learning_rate": "0.0009", "lora_rank": 16}}]}


@pytest.fixture
def build(tmp_path: Path) -> Builder:
    store = Store(tmp_path / "home")
    return Builder(store, store.new_run("tickets", plan=PLAN))


def trained(build: Builder, *, ended: bool = True, error: str = "", **request: Any) -> str:
    step = build.step("train", arm="adapter", request={"run": build.run, **request})
    if ended:
        build.end(step, 10.0, 1, error=error)
    return step


def proposed(build: Builder, by: str = "", reason: str = "", **request: Any) -> str:
    """A plan that was shown, and where `by` says so declined."""
    step = build.store.propose(build.run, "train", request=request, plan={}, plan_hash=digest(str(request)))
    if by:
        build.store.decide(step, "no", by=by, reason=reason, price={})
    with build.store.write() as conn:
        conn.execute("UPDATE steps SET created_at = ? WHERE step = ?", (build.now, step))
    build.now += 1
    return step


def told(build: Builder, setting: str) -> str:
    """The first two lines: the value, and why."""
    context = Context(Workspace(build.store, None, lambda event, **data: None))
    return " ".join(answer(SettingQuery(fields=(setting,)), context).lines[:2])


def test_the_value_that_was_used_comes_before_one_that_was_only_proposed(build: Builder) -> None:
    proposed(build, lora_rank=4)
    assert "lora_rank was 4 in train (s1 of r1) (proposed, never run)" in told(build, "lora_rank")
    trained(build, lora_rank=8, error="out of memory")
    proposed(build, "terminal", "too slow", lora_rank=64)
    assert "lora_rank was 8 in train (s2 of r1)." in told(build, "lora_rank")
    trained(build, lora_rank=16)
    proposed(build, "terminal", "too slow", lora_rank=64)
    trained(build, ended=False, lora_rank=32)
    assert "lora_rank was 16 in train (s4 of r1)." in told(build, "lora_rank")


def test_the_plan_is_the_reason_only_for_the_value_that_it_holds(build: Builder) -> None:
    trained(build, learning_rate=0.0009)
    assert told(build, "learning_rate").endswith("it is written in the plan of r1 (tickets).")
    trained(build, learning_rate=0.0002, lora_alpha=77)
    assert "0.0002" in told(build, "learning_rate") and "plan" not in told(build, "learning_rate")
    assert told(build, "lora_alpha").endswith("it was given when train was asked for.")


def test_an_edit_is_the_reason_only_for_the_step_that_it_led_to(build: Builder) -> None:
    proposed(build, "edit", "edited: lora_rank=8", lora_rank=16)
    proposed(build, "edit", "edited: epochs=2", lora_rank=8)
    trained(build, lora_rank=8)
    assert told(build, "lora_rank").endswith("you set it when train was priced.")
    trained(build, lora_rank=16)
    assert told(build, "lora_rank").endswith("it is written in the plan of r1 (tickets).")
