"""Proposed cases: new, unlike the examples and one another, and told with what so many of them can show."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fixtures import FIXTURES
from tests.fixtures.descriptions import COOKING
from tunesmith.memory.errors import BadInput, StepFailed
from tunesmith.tools.data.augmentation import add_cases, draw_row, propose_cases
from tunesmith.tools.data.behaviour import write_behaviour
from tunesmith.tools.data.description import Example
from tunesmith.tools.data.row_checks import prompt_problem
from tunesmith.tools.data.similarity import Likeness
from tunesmith.tools.data.spec import Spec
from tunesmith.tools.data.spec_suites import SUITE, right_answer
from tunesmith.tools.data.verify import verified
from tunesmith.tools.serving.client import ChatClient
from tunesmith.tools.suites.loading import load_suites

STUB = FIXTURES / "stub_described.py"
BEHAVIOUR = COOKING


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "answers").write_text("1000")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "STUB_REQUESTS": str(tmp_path / "r"), "STUB_ANSWERS": str(tmp_path / "answers")}
    argv = [sys.executable, str(STUB), "--served-model-name", "m", "--host", "127.0.0.1", "--port", str(port)]
    with subprocess.Popen(argv, env=environment) as server:
        address = f"http://127.0.0.1:{port}"
        for _ in range(2000):
            try:
                urllib.request.urlopen(f"{address}/v1/models", timeout=1).close()
                break
            except OSError:
                time.sleep(0.05)
        yield address
        server.terminate()


def test_proposed_cases_are_new_and_say_what_they_can_show(url: str, tmp_path: Path) -> None:
    proposed = asyncio.run(propose_cases(BEHAVIOUR, ChatClient(url, "k"), model="m", count=17))
    assert len(proposed.prompts) == 17 <= proposed.asked
    seen = Likeness((example.prompt, example.prompt) for example in COOKING.examples)
    for prompt in proposed.prompts:
        assert not prompt_problem(BEHAVIOUR, prompt) and not seen.match(prompt, 85, digits_count=True)
        seen.add(prompt, prompt)
    assert proposed.detectable == "with 20 cases no gain under 30 points can be shown"
    assert proposed.minimum_detectable_effect == pytest.approx(0.3)
    folder = write_behaviour(COOKING, tmp_path)
    add_cases(folder / SUITE, COOKING, proposed.prompts)
    assert len(load_suites([folder / SUITE], models=("judge",)).cases) == 20


def test_a_server_that_answers_nothing_is_told(url: str, tmp_path: Path) -> None:
    (tmp_path / "answers").write_text("0")
    with pytest.raises(StepFailed, match="none of 2 requests was answered: HTTP 400: no more answers"):
        asyncio.run(propose_cases(BEHAVIOUR, ChatClient(url, "k"), model="m", count=5))


def test_cases_are_added_behind_those_that_are_there(tmp_path: Path) -> None:
    suite = write_behaviour(COOKING, tmp_path) / SUITE
    add_cases(suite, BEHAVIOUR, ["one"])
    add_cases(suite, BEHAVIOUR, ["two {{ braces }}", "three"])
    cases = load_suites([suite], models=("judge",)).cases
    assert [case.case_id for case in cases][3:] == [f"three-points-more-{n:02d}" for n in (1, 2, 3)]
    assert [case.vars["message"] for case in cases][3:] == ["one", "two {{ braces }}", "three"]
    suite.write_text("tests: 3\n")
    with pytest.raises(BadInput, match="is not a target suite"):
        add_cases(suite, BEHAVIOUR, ["four"])


def test_where_the_answer_is_a_choice_each_example_asserts_its_own() -> None:
    spam = Spec(
        name="spam",
        when="always",
        what="answer with one of spam or ham",
        never="nothing",
        examples=tuple(Example(prompt=f"mail {n}", answer=answer) for n, answer in enumerate(("spam", "ham", "ham"))),
    )
    behaviour = verified(spam).spec
    own = [right_answer(behaviour, one.prompt, one.answer, judged=True).assertions for one in spam.examples]
    assert [assertion["value"] for assertions in own for assertion in assertions] == ["spam", "ham", "ham"]


def test_a_seed_and_a_number_always_draw_the_same_row_and_every_subject_comes_in_turn() -> None:
    subjects = ["soup", "bread", "duck"]
    rows = [draw_row(BEHAVIOUR, subjects, 17, index) for index in range(30)]
    assert rows == [draw_row(BEHAVIOUR, subjects, 17, index) for index in range(30)]
    assert all({row.subject for row in rows[lap : lap + 3]} == set(subjects) for lap in range(0, 30, 3))
    assert rows != [draw_row(BEHAVIOUR, subjects, 18, index) for index in range(30)]
    assert len({row.shots for row in rows}) >= 5 and draw_row(BEHAVIOUR, [], 17, 0).subject == ""
