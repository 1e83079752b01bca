"""A clock that was set back: what was written last is the newest, whatever time it bears."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.fixtures import FIXTURES
from tests.fixtures.asking import asked
from tunesmith.memory.conversations import Conversations
from tunesmith.memory.records import Artifact
from tunesmith.memory.store import Store
from tunesmith.tools.export.deploy import previous_deployment
from tunesmith.tools.pipeline import planning_facts
from tunesmith.tools.serving import servers
from tunesmith.tools.serving.spec import ServerSpec

HOUR_S = 3600


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "home")


def set_back(monkeypatch: pytest.MonkeyPatch) -> None:
    earlier = time.time() - HOUR_S
    monkeypatch.setattr(time, "time", lambda: earlier)


def trained(store: Store, run: str) -> str:
    """A step of `run`, with an adapter that it made; the adapter's id."""
    step = store.propose(run, "train", plan_hash="h", plan={"estimate": {"calibrated_seconds": 1}})
    return store.add_artifact(Artifact("", run, step, "adapter", Path(step), step, 1)).id


def test_the_next_plan_takes_the_adapter_that_was_trained_last(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    run = store.new_run("first")
    trained(store, run)
    set_back(monkeypatch)
    later = trained(store, run)
    assert planning_facts.gather(store, run, vllm=None).artifacts["adapter"].id == later
    assert [step.id for step in store.priced_steps(run)] == ["s1", "s2"]


def test_the_newest_run_is_the_one_that_was_opened_last(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("first", "second"):
        later = store.new_run(name, plan={"steps": [{"stage": "base"}]})
        set_back(monkeypatch)
    newest = store.newest_run()
    assert newest and newest.id == later


def test_the_newest_conversation_is_the_one_that_was_spoken_in_last(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    conversations = Conversations(store)
    conversations.begin("c1", "hello")
    set_back(monkeypatch)
    conversations.begin("c2", "hello again")
    assert [told[0] for told in conversations.list()] == ["c2", "c1"]


def test_a_rollback_goes_to_what_was_served_before_the_last(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    run = store.new_run("first")
    step = store.propose(run, "deploy", plan_hash="h")
    for served in ("a1", "a2"):
        deployment = Artifact("", run, step, "deployment", Path(served), served, 1, meta={"serves": served})
        store.add_artifact(deployment)
        set_back(monkeypatch)
    assert previous_deployment(store).meta["serves"] == "a1"


def test_the_deployment_that_is_told_first_is_the_one_that_was_made_last(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = store.new_run("first")
    for number in range(3):
        step = store.propose(run, "deploy", plan_hash="h")
        store.add_artifact(Artifact("", run, step, "deployment", Path(step), step, 1, meta={"serves": f"a{number}"}))
        set_back(monkeypatch)
    assert [one["step"] for one in asked(store, "served").facts] == ["s3", "s2", "s1"]


@pytest.mark.heavy
def test_the_server_that_was_started_last_is_listed_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    spec, stub = ServerSpec(model_dir=str(tmp_path), served_name="base"), str(FIXTURES / "stub_vllm.py")
    try:
        first = servers.start(home, spec, vllm=stub, log_path=home / "1.log", owner="s1")
        set_back(monkeypatch)
        second = servers.start(home, spec, vllm=stub, log_path=home / "2.log", owner="s2")
        assert [server.id for server in servers.list_servers(home)] == [first.id, second.id]
    finally:
        servers.stop_all(home)
