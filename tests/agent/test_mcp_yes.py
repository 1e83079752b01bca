"""The yes that comes through `tunesmith mcp` is to the one step and plan that were shown; and what needs no yes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mcp", reason="pip install 'tunesmith[mcp]'")

from tests.agent.test_mcp import BASE, MODES, Person, called, home, launched, talk
from tests.fixtures.stored_runs import new_builder
from tunesmith.memory.records import Step
from tunesmith.memory.store import Store
from tunesmith.tools.pipeline import catalog

__all__ = ["home", "launched"]


class Meanwhile(Person):
    """Who says yes once something else was done."""

    def __init__(self, home: Path, done: Any) -> None:
        super().__init__(start=True)
        self.home, self.done = home, done

    async def __call__(self, context: Any, params: Any) -> Any:
        done, self.done = self.done, None
        if done:
            done(Store(self.home))
        return await super().__call__(context, params)


def priced_again(store: Store) -> None:
    """The very same plan, as another step that waits."""
    [first] = store.priced_steps()
    store.propose(first.run, first.stage, request=first.request, plan=first.plan, plan_hash=first.plan_hash)


def declined(store: Store) -> None:
    """A no, at another terminal."""
    [first] = store.priced_steps()
    store.decide(first.id, "no", by="terminal", reason="not tonight", price={})


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("done", [priced_again, declined])
def test_only_the_step_that_was_shown_last_is_started(home: Path, launched: list[str], mode: str, done: Any) -> None:
    person = Meanwhile(home, done)

    async def calls(client: Any) -> Any:
        plan = await called(client, "plan", **BASE)
        return await client.call_tool("start", {"plan_hash": plan["plan_hash"]})

    answer = talk(home, calls, mode=mode, person=person)
    assert all(f"({step}, " in person.shown[-1] for step in launched)
    if mode == "legacy" or done is declined:
        assert launched == [] and answer.is_error
    assert done is priced_again or [step.status for step in Store(home).priced_steps()] == ["declined"]


@pytest.mark.parametrize("mode", MODES)
def test_a_part_of_a_hash_is_no_plan(home: Path, launched: list[str], mode: str) -> None:
    """Two plans may share their first digits, and a model may look for such: the whole hash is one plan's alone."""
    person = Person(start=True)

    async def calls(client: Any) -> list[Any]:
        whole = (await called(client, "plan", **BASE))["plan_hash"]
        store = Store(home)
        [first] = store.priced_steps()
        other = store.new_run("another")
        store.propose(other, first.stage, request=first.request, plan=first.plan, plan_hash=f"{whole[:12]}{'0' * 52}")
        parts = (whole[:12], whole[:1], whole[:63], "", "%", f"{whole[:12]}%", whole.upper(), f"{whole}0", f" {whole}")
        refused = [await client.call_tool("start", {"plan_hash": part}) for part in parts]
        return [*refused, await called(client, "start", plan_hash=whole), first.id]

    *refused, started, first = talk(home, calls, mode=mode, person=person)
    assert all(one.is_error and "all 64 characters" in str(one.content) for one in refused)
    assert started["started"] and launched == [first] and len(person.shown) == 1


def test_a_no_is_recorded_for_the_step_that_was_shown(home: Path, launched: list[str]) -> None:
    class No(Meanwhile):
        def __init__(self) -> None:
            super().__init__(home, priced_again)
            self.answer = Person(start=False, reason="too dear").answer

    async def calls(client: Any) -> Any:
        plan = await called(client, "plan", **BASE)
        return await client.call_tool("start", {"plan_hash": plan["plan_hash"]})

    talk(home, calls, mode="legacy", person=No())
    assert launched == [] and [step.status for step in Store(home).priced_steps()][-1] == "planned"


def test_stop_ends_a_step_at_work_without_a_yes_and_nothing_else(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build = new_builder(home)
    ended, at_work = build.step("base"), build.step("train")
    build.end(ended, 1.0, 1)
    stopped: list[str] = []

    def stop(store: Store, step: str) -> Step:
        stopped.append(step)
        return store.step(step)

    monkeypatch.setattr("tunesmith.tools.pipeline.launcher.stop", stop)
    person = Person(start=False)

    async def calls(client: Any) -> list[Any]:
        return [await client.call_tool("stop", {"step": step}) for step in (ended, at_work)]

    refused, answer = talk(home, calls, person=person)
    assert refused.is_error and "does not run: it is done" in str(refused.content)
    assert not answer.is_error and stopped == [at_work] and person.shown == []
    [event] = Store(home).read("SELECT step, data FROM events WHERE event = 'step.stopped'")
    assert tuple(event) == (at_work, '{"by": "mcp"}')


def test_settings_of_a_run_whose_newest_step_with_any_is_an_import_are_told(home: Path) -> None:
    build = new_builder(home)
    step = build.step("import", request={"run": build.run, "source": "/data/rows.jsonl", "limit": 5})
    build.end(step, 1.0, 1, {"rows": 5})
    build.store.close()

    async def calls(client: Any) -> Any:
        return await called(client, "ask", question={"kind": "settings", "run": build.run})

    facts = {fact["setting"]: fact for fact in talk(home, calls)["facts"]}
    assert (facts["import.source"]["value"], facts["import.limit"]["value"]) == ("/data/rows.jsonl", 5)
    assert facts["import.source"]["default"] == "none (it has to be named)"
    assert facts["import.limit"]["default"] == "100000"


def test_the_defaults_of_every_stage_can_be_told(home: Path) -> None:
    new_builder(home).store.close()

    async def calls(client: Any) -> list[Any]:
        asked = [{"kind": "settings", "stage": stage} for stage in catalog.BY_NAME]
        return [await called(client, "ask", question=one) for one in asked]

    assert "Undefined" not in str(talk(home, calls))
