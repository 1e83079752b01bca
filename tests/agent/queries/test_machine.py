"""What is here now: the machine, what is served, what is at work."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.driver.stranger_states import home_of_state
from tests.fixtures import stored_runs
from tests.fixtures.asking import asked
from tunesmith.agent.queries import machine
from tunesmith.agent.queries.table import text_of
from tunesmith.memory.store import Store
from tunesmith.tools.core.machine import Gpu, Machine

TWO_SERVED = "at least two finished runs; a model of one of them is served now, and another was served before it"


def test_the_machine_is_told_with_its_cards_and_where_models_are_served(
    two_runs: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    gib = 1 << 30
    here = Machine("CPU", 8, 64 * gib, 40 * gib, 0, 100 * gib)
    monkeypatch.setattr(machine, "measure_machine", lambda home: here)
    [none] = asked(two_runs, "machine").facts
    assert none["gpus"] == 0 and none["free_ram_bytes"] == 40 * gib and none["models_are_served_on"] == "CPU"
    assert text_of(asked(two_runs, "machine"))[0].startswith("GPUs none · free RAM 40.0 GiB · RAM 64.0 GiB")
    card = Gpu(0, "RTX", 24 * gib, 20 * gib, "8.9", "580")
    monkeypatch.setattr(machine, "measure_machine", lambda home: Machine("CPU", 8, gib, gib, 0, gib, (card, card)))
    [two] = asked(two_runs, "machine").facts
    assert two["gpus"] == 2 and two["gpu_1"] == {"name": "RTX", "free_vram_bytes": 20 * gib, "vram_bytes": 24 * gib}


@pytest.mark.heavy
def test_a_deployment_has_its_port_who_agreed_what_it_passes_and_whether_a_rollback_brings_it_back(
    tmp_path: Path,
) -> None:
    with home_of_state(tmp_path / "home", TWO_SERVED):
        store = Store(tmp_path / "home")
        found = asked(store, "served")
        assert found.of == {"run": "", "deployments": 2, "served_now": 1}
        now, before = found.facts
        assert now["served_now"] is True and ":8411" in str(now["address"]) and str(now["key_file"]).endswith(".key")
        assert before["served_now"] is False and before["rollback_brings_back"] is True
        assert {"run": "r1", "agreed_by": "--yes beforehand", "target_passed": "57 of 60"}.items() <= before.items()
        assert str(before["address"]).startswith("http://127.0.0.1:8411"), "the history has the port"
        of_one = asked(store, "served", run="r1")
        assert of_one.of["served_now"] == 0 and [one["run"] for one in of_one.facts] == ["r1"]
        assert asked(store, "served", until="2001-01-01").facts == ()


def test_what_is_at_work_and_what_waits_are_counted_and_listed(tmp_path: Path) -> None:
    with home_of_state(tmp_path / "home", "a training step is running"):
        found = asked(Store(tmp_path / "home"), "jobs")
    assert (found.of["running"], found.of["waiting_for_a_yes"]) == (1, 0)
    assert found.facts[0]["stage"] == "train" and found.facts[0]["left_seconds"] > 0  # type: ignore[operator]
    build = stored_runs.new_builder(tmp_path / "other")
    build.end(build.step("base"), 3.0, 1, {})
    build.store.propose(build.run, "generate", plan={}, plan_hash="h", estimated_seconds=60.0)
    waits = asked(build.store, "jobs")
    assert (waits.of["running"], waits.of["waiting_for_a_yes"]) == (0, 1)
    assert waits.of["ended_last"]["step"] == "s1" and waits.facts[0]["stage"] == "generate"  # type: ignore[index]
