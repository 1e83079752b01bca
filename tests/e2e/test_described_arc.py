"""A described behaviour on the real model: messages and answers are written, held to the rules, and kept or dropped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.fixtures.demo_run import HANG_S, as_json, tunesmith
from tests.fixtures.descriptions import COOKING
from tests.fixtures.open_gate import Served
from tunesmith.tools.data.answer_rules import broken_rule
from tunesmith.tools.data.scaffold import SUITE, write_behaviour
from tunesmith.tools.data.similarity import Likeness
from tunesmith.tools.serving.servers import BENCH, list_servers, stop

pytestmark = [pytest.mark.e2e, pytest.mark.alone, pytest.mark.timeout(HANG_S + 600)]


def test_a_real_model_writes_rows_that_keep_the_rules_and_leave_the_cases_alone(served: Served, tmp_path: Path) -> None:
    home, folder = served.home, write_behaviour(COOKING, tmp_path)
    run = as_json(tunesmith(home, "base", "--yes", "--json"))["run"]
    sizes = ("--rows", "24", "--near_miss_rows", "6", "--rehearsal_rows", "4", "--tries", "3", "--run", run)
    as_json(tunesmith(home, "generate", "--behaviour", str(folder), *sizes, "--yes", "--json", timeout_s=HANG_S))
    for server in list_servers(home, role=BENCH):  # of this run's own base, which has a name of its own
        stop(server)
    critique = ("critique", "--suites", str(folder / SUITE), "--run", run, "--yes", "--json")
    done = as_json(tunesmith(home, *critique, timeout_s=HANG_S))
    result = done["result"]
    assert result["candidates"] == 34 and result["kept"] + result["dropped"] == 34
    rows = [json.loads(line) for name in ("train", "valid") for line in _lines(Path(result["path"]) / f"{name}.jsonl")]
    written = [row for row in rows if row["origin"] == "generated"]
    cases = Likeness((example.prompt, example.prompt) for example in COOKING.examples)
    assert written
    for row in written:
        assert broken_rule(COOKING.rules, row["completion"][0]["content"]) is None
        assert not cases.match(row["prompt"][0]["content"], 85)


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines()
