"""The start: where things stand in at most four lines that fit 80 columns, and what to type next."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.fixtures.stored_runs import baseline_run, finished_run
from tests.fixtures.tables import table
from tunesmith.agent.commands.settings import DriverSettings, Settings
from tunesmith.agent.driver.endpoint import driver_state
from tunesmith.agent.repl.greeting import greeting
from tunesmith.agent.repl.repl import HELLO
from tunesmith.memory.store import Store

HOMES: dict[str, Callable[[Path], Store]] = {
    "fresh": Store,
    "finished": lambda home: finished_run(home)[0],
    "waiting": lambda home: baseline_run(home)[0],
}


@table("home", HOMES)
def test_it_is_four_lines_that_fit(home: str, tmp_path: Path) -> None:
    lines = [HELLO, *greeting(HOMES[home](tmp_path))]
    assert len(lines) == 4 and all(0 < len(line) <= 80 for line in lines)


def test_what_to_type_fits_the_home(tmp_path: Path) -> None:
    last = {name: greeting(make(tmp_path / name))[1:] for name, make in HOMES.items()}
    assert "`/demo`" in last["fresh"][-1]
    assert "r1" in last["finished"][0] and "done" in last["finished"][0]
    assert "`/report r1`" in last["finished"][-1] and "/demo" not in last["finished"][-1]
    assert "“go on”" in last["waiting"][-1]


def test_no_driver_is_claimed_that_is_not_there(tmp_path: Path) -> None:
    assert "No language model is here yet" in driver_state(Settings(home=tmp_path))
    away = Settings(home=tmp_path, driver=DriverSettings(endpoint="https://models.example/v1", name="big"))
    said = driver_state(away)
    assert "big" in said and "https://models.example/v1" in said and "nothing leaves" not in said
