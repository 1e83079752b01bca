"""The yes that comes through `tunesmith mcp` is to the one step and plan that were shown; and what needs no yes."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mcp", reason="pip install 'tunesmith[mcp]'")

from mcp.client.client import Client
from mcp_types import Implementation

from tests.agent.test_mcp import BASE, MODES, Person, called, home, launched, talk
from tests.fixtures.stored_runs import new_builder
from tunesmith.agent.commands import render
from tunesmith.agent.commands.settings import Settings
from tunesmith.agent.commands.summary import write_run_report
from tunesmith.agent.driver.state_summary import state_summary
from tunesmith.agent.mcp import server
from tunesmith.agent.queries.answer import Context as Records
from tunesmith.agent.queries.registry import ask
from tunesmith.agent.queries.steps import StepQuery
from tunesmith.memory.questions import show_run
from tunesmith.memory.store import Store
from tunesmith.tools.pipeline import catalog, launcher
from tunesmith.tools.pipeline.workspace import Workspace

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
    groups: list[object] = []
    monkeypatch.setattr(launcher, "stop_group", lambda worker, grace_s: groups.append(worker))
    person = Person(start=False)

    async def calls(client: Any) -> list[Any]:
        return [await client.call_tool("stop", {"step": step}) for step in (ended, at_work)]

    refused, answer = talk(home, calls, person=person)
    assert refused.is_error and "does not run: it is done" in str(refused.content)
    assert not answer.is_error and len(groups) == 1 and person.shown == []
    assert [step.status for step in Store(home).steps()] == ["done", "stopped"]


@pytest.fixture
def at_work(home: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A training at work, whose worker ends at once when it is stopped, without a word."""
    monkeypatch.setattr(launcher, "stop_group", lambda worker, grace_s: None)
    build = new_builder(home)
    build.end(build.step("base"), 1.0, 1)
    return build.step("train")


def stopped_by(home: Path, step: str, name: str, mode: str = "auto") -> Any:
    """The step as a client of that name is shown it once it has stopped it."""

    async def connected() -> Any:
        made, client_info = server(Settings(home=home), Store(home)), Implementation(name=name, version="1")
        async with Client(made, mode=mode, client_info=client_info) as client:
            return await called(client, "stop", step=step)

    return asyncio.run(connected())


@pytest.mark.parametrize("mode", MODES)
def test_who_stopped_a_step_is_told_by_its_name_wherever_its_end_is(home: Path, at_work: str, mode: str) -> None:
    answer, who = stopped_by(home, at_work, "claude-code", mode), "stopped by claude-code over MCP"
    store = Store(home)
    step = store.step(at_work)
    assert step.status == "stopped" and answer["error"].startswith(f"{who} (")
    shown = show_run(store, step.run)["steps"]
    assert [one["stopped_by"] for one in shown] == [None, "claude-code over MCP"]
    records = Records(Workspace(store, None, lambda event, **data: None), store.newest_run())
    page = write_run_report(store, step.run).path.read_text()
    for told in (
        render.step_end(step).text.plain, ask(StepQuery(step=at_work), records).for_model(), page,
        state_summary(store, store.newest_run(), None), str(shown),
    ):  # fmt: skip
        assert who in told and "by the user" not in told
    assert [one.id for one in store.unannounced()].count(at_work) == 1, "nobody here stopped it: it is told once"


def test_what_a_person_stopped_is_told_so_also_after_an_agent_stopped_an_earlier_attempt(
    home: Path, at_work: str
) -> None:
    stopped_by(home, at_work, "claude-code")
    store = Store(home)
    store.reopen(at_work)
    store.decide(at_work, "yes", by="test", reason="", price={})
    store.claim(at_work, needs_approval=True, pid=4242, pid_started=1.0, boot_id="boot")
    assert store.stopped_by(at_work) == "the user", "a signal that nobody announced"
    assert (launcher.stop(store, at_work).error or "").startswith("stopped by the user (")
    assert store.stopped_by(at_work) == "the user"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("a\nb\x1b[2J\u202e", "a b⟨U+001B⟩[2J⟨U+202E⟩"), ("x" * 99, "x" * 40), (" \n", "an agent"),
        ("you' OR 1=1 --", "you' OR 1=1 --"), ("<b>[red]&amp;", "<b>[red]&amp;"),
    ],
)  # fmt: skip
def test_a_clients_name_is_a_strangers_text(home: Path, at_work: str, name: str, told: str) -> None:
    error = stopped_by(home, at_work, name)["error"]
    assert error.startswith(f"stopped by {told} over MCP (") and len(error.splitlines()) == 1
    assert Store(home).stopped_by(at_work) == f"{told} over MCP"


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
