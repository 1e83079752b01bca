"""A described behaviour on the real model: messages and answers are written, held to the rules, and kept or dropped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.fixtures.demo_run import HANG_S, as_json, tunesmith
from tests.fixtures.descriptions import COOKING
from tests.fixtures.open_gate import Served
from tunesmith.tools.core.similarity import Likeness
from tunesmith.tools.data.answer_rules import broken_rule
from tunesmith.tools.data.behaviour import write_behaviour
from tunesmith.tools.data.spec_suites import SUITE
from tunesmith.tools.serving.servers import list_servers

pytestmark = [pytest.mark.e2e, pytest.mark.alone, pytest.mark.xdist_group("served"), pytest.mark.timeout(HANG_S + 600)]


def test_a_real_model_writes_rows_that_keep_the_rules_and_leave_the_cases_alone(served: Served, tmp_path: Path) -> None:
    home, folder = served.home, write_behaviour(COOKING, tmp_path)
    sizes = ("--rows", "8", "--near_miss_rows", "2", "--rehearsal_rows", "1", "--tries", "2", "--run", "r1")
    generate = ("generate", "--behaviour", str(folder), *sizes, "--yes", "--json")
    rows_written = as_json(tunesmith(home, *generate, timeout_s=HANG_S))["result"]
    assert [server.id for server in list_servers(home)] == [served.server.id], "its base answers there already"
    critique = ("critique", "--suites", str(folder / SUITE), "--run", "r1", "--yes", "--json")
    done = as_json(tunesmith(home, *critique, timeout_s=HANG_S))
    result = done["result"]
    # How many the model writes of each kind is its own affair; each of them has a verdict.
    assert result["candidates"] == sum(rows_written[f"{kind}rows"] for kind in ("", "near_miss_", "rehearsal_")) >= 8
    assert result["kept"] + result["dropped"] == result["candidates"]
    rows = [json.loads(line) for name in ("train", "valid") for line in _lines(Path(result["path"]) / f"{name}.jsonl")]
    written = [row for row in rows if row["origin"] == "generated"]
    cases = Likeness((example.prompt, example.prompt) for example in COOKING.examples)
    assert written
    for row in written:
        assert broken_rule(COOKING.rules, row["completion"][0]["content"]) is None
        assert not cases.match(row["prompt"][0]["content"], 85)


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines()
