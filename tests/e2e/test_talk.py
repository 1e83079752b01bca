"""From "hi" to a served fine-tune and three questions about it, in words alone: real driver, real arc, a terminal.

No slash command is typed. The person says yes at every price. Slow: the driver is fetched and served besides the arc;
`make test-talk` runs it and keeps what the screen showed in build/transcript.txt.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.demo_run import tunesmith
from tests.fixtures.terminal import Terminal
from tunesmith.tools.pipeline import catalog

pytestmark = [pytest.mark.slow, pytest.mark.alone]

ARC_S = 15 * 60
TURN_S = 120
_PROMPT = "tunesmith ❯"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with the bundled driver in it, fetched as a user would."""
    folder = tmp_path_factory.mktemp("talk") / "home"
    if ready := os.environ.get("TUNESMITH_TALK_MODELS"):  # fetched before
        shutil.copytree(ready, folder / "models")
    fetched = tunesmith(folder, "base", "--model", "bundled-driver", "--role", "driver", "--yes", timeout_s=600)
    assert fetched.returncode == 0, fetched.stderr
    return folder


@pytest.fixture(scope="module")
def talk(home: Path) -> Iterator[Terminal]:
    """The whole conversation, held once."""
    env = {**os.environ, "TUNESMITH_HOME": str(home), "TERM": "xterm-256color"}
    one = Terminal([], env, size=(50, 110), cold=True)
    try:
        one.expect(_PROMPT)
        _say(one, "hi", first=True)
        _say(one, "I'd like it to answer support tickets as strict JSON. just a quick try")
        _carry_out(one, one.line("looks good, start it"))
        for question in ("how did it go?", "why rank 16?", "which run made the model that is served now?"):
            _say(one, question)
        yield one
    finally:
        Path("build").mkdir(exist_ok=True)
        Path("build/transcript.txt").write_text(one.text)
        Path("build/transcript.raw").write_bytes(one.raw)  # `cat` it in a terminal of that size to see the screen
        one.close()
        tunesmith(home, "serve", "stop")


def _say(one: Terminal, words: str, *, first: bool = False) -> None:
    """Say something and wait until the answer is whole: the store has it."""
    turns = _replies(one)
    one.line(words)
    one.wait(lambda: _replies(one) > turns, timeout_s=TURN_S + (120 if first else 0))


def _replies(one: Terminal) -> int:
    return int(_read(one, "SELECT count(*) FROM conversations WHERE role = 'assistant'")[0][0])


def _carry_out(one: Terminal, place: int) -> None:
    """Say yes at each price until the plan is done."""
    asked: set[str] = set()

    def due() -> set[str] | str:
        return _waiting(one) - asked or _ended(one)

    while not isinstance(new := one.wait(due, timeout_s=ARC_S), str):
        asked.update(new)
        one.expect("Start?", after=place)
        time.sleep(0.8)  # what is typed in the first half second does not count
        place = one.line("yes")


def _waiting(one: Terminal) -> set[str]:
    """Steps whose price waits for an answer."""
    return {str(row[0]) for row in _read(one, "SELECT step FROM steps WHERE status = 'planned'")}


def _ended(one: Terminal) -> str:
    found = _read(one, "SELECT status FROM runs WHERE name != 'driver' AND status IN ('done', 'failed')")
    return str(found[0][0]) if found else ""


def _read(one: Terminal, sql: str) -> list[Any]:
    with sqlite3.connect(f"file:{one.env['TUNESMITH_HOME']}/tunesmith.db?mode=ro", uri=True) as db:
        return db.execute(sql).fetchall()


def test_the_plan_was_carried_out_to_a_served_model_with_a_yes_at_every_price(talk: Terminal) -> None:
    assert _ended(talk) == "done"
    steps = _read(talk, "SELECT stage, status FROM v_steps WHERE run = 'r2'")
    assert {stage for stage, _ in steps} == set(catalog.BY_NAME) and {status for _, status in steps} == {"done"}
    unasked = """SELECT s.stage FROM steps s WHERE s.run = 'r2' AND s.stage != 'inspect' AND NOT EXISTS
        (SELECT 1 FROM approvals a WHERE a.step = s.step AND a.decision = 'yes' AND a.decided_by = 'terminal')"""
    assert _read(talk, unasked) == []


def test_every_turn_called_what_was_meant(talk: Terminal) -> None:
    kept = [json.loads(row[0]) for row in _read(talk, "SELECT content FROM conversations WHERE role = 'messages'")]
    called = [
        [
            part["tool_name"]
            for message in turn["messages"]
            for part in message["parts"]
            if part["part_kind"] == "tool-call"
        ]
        for turn in kept
    ]
    assert called == [[], ["plan_fine_tune"], ["start_plan"], ["read_run"], ["read_setting"], ["read_served"]]


def test_the_three_questions_were_answered_from_the_records_with_the_run_cited(talk: Terminal) -> None:
    shown = talk.text[talk.text.index("how did it go?") :]
    rank = shown[shown.index("why rank 16?") : shown.index("which run made")]
    made = shown[shown.index("which run made") :]
    assert "quantized" in shown and "lora_rank" in rank and "16" in rank and "r2" in made


def test_no_slash_command_was_typed_and_nothing_went_wrong(talk: Terminal) -> None:
    assert "Traceback" not in talk.text and "tunesmith: " not in talk.text
