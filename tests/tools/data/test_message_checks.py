"""What stops a written message from being a row: among others that it says its label instead of showing it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.fixtures.behaviours import COMMIT, FEEDBACK
from tests.fixtures.scripted_asker import Answering
from tests.fixtures.tables import table
from tunesmith.memory.row_attributes import Draw
from tunesmith.tools.data.behaviour import spec_of
from tunesmith.tools.data.draw import fill_pools
from tunesmith.tools.data.row_checks import names_label
from tunesmith.tools.data.spec import Spec
from tunesmith.tools.data.writer_requests import STYLE, example_shots, message_request, values_of, written_message
from tunesmith.tools.serving import requests
from tunesmith.tools.serving.client import ChatRequest, ChatResponse
from tunesmith.tools.serving.requests import Tally

MOODS = spec_of(FEEDBACK, "x")


def refunds() -> Spec:
    said = [("I want a refund for the lamp", "refund"), ("where is my box", "delivery"), ("the app crashes", "bug")]
    return spec_of(
        {
            "name": "desk", "when": "a customer writes", "what": "one word: refund, delivery or bug",
            "never": "explain", "labels": ["refund", "delivery", "bug"],
            "examples": [{"prompt": prompt, "answer": answer} for prompt, answer in said],
        },
        "x",
    )  # fmt: skip


@table(
    ("message", "mood", "named"),
    [
        ("the visit left me torn", "torn", "torn"),
        ("a Torn experience", "torn", "torn"),
        ("a page was torn out", "cross", ""),  # another label's word, which says nothing of this one
        ("it was glad weather", "glad", "glad"),
        ("gladly again", "glad", ""),
    ],
)
def test_a_message_that_says_its_label_is_told(message: str, mood: str, named: str) -> None:
    assert names_label(MOODS, {"mood": mood, "quote": "x"}, message) == named


def test_where_people_say_labels_by_their_names_so_may_messages() -> None:
    spec = refunds()
    assert not names_label(spec, {spec.labels[0].name: "refund"}, "please refund my order")


def test_short_labels_stand_in_messages_by_chance() -> None:
    assert not names_label(spec_of(COMMIT, "x"), {"type": "fix"}, "a fix for the clock")


def test_every_label_is_told_beside_the_others_and_the_examples_of_its_kind_come_last() -> None:
    values, surfaces = {"mood": "torn", "quote": "cold soup"}, {"quote": "cold soup"}
    note = Draw("w1", (values,), (surfaces,), 0, {STYLE: "in a few words"})
    request = message_request(MOODS, note, example_shots(MOODS), "writer", 0.7, "m1/0")
    texts = [str(turn["content"]) for turn in request.messages]
    assert all(f"- {name}: {value.means}" in texts[0] for name, value in MOODS.labels[0].values.items())
    assert texts[-2] == "Great maps, but the cafe smelled of fish." and "in a few words" in texts[-1]
    assert '"cold soup"' in texts[-1] and texts[-1].count("torn") == 1


def test_behind_few_names_of_a_label_those_of_the_others_are_shown() -> None:
    nobody = Answering(lambda request: ChatResponse(id=request.id))
    fill_pools(MOODS, nobody, 6, 1)
    begun = {request.id: str(request.messages[-1]["content"]) for request in nobody.asked if "/quote/" in request.id}
    assert len(begun) >= len(MOODS.labels[0].values)
    assert all(quote in text for text in begun.values() for quote in values_of(MOODS, "quote", {}))


def test_notes_of_one_manner_and_turn_begin_alike_and_all_examples_are_shown_in_turn() -> None:
    spec = MOODS.model_copy(update={"examples": tuple(
        e.model_copy(update={"prompt": f"{e.prompt} {n}"}) for n, e in enumerate(MOODS.examples * 5)
    )})  # fmt: skip
    shots = example_shots(spec)

    def begun(quote: str, order: int) -> list[str]:
        note = Draw("w1", ({"mood": "glad", "quote": quote},), ({"quote": quote},), order)
        return [str(turn["content"]) for turn in message_request(spec, note, shots, "w", 0.7, "m").messages[:-1]]

    assert begun("fine tea", 0) == begun("warm halls", 6) != begun("fine tea", 1)
    seen = {text for order in range(12) for text in begun("x", order)}
    assert {shot.message for shot in shots if shot.values["mood"] == "glad"} <= seen


def test_half_a_character_of_a_server_ends_in_no_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    half = ChatResponse(id="a", text="half of a pair: \ud83d")
    monkeypatch.setattr(requests, "ask", lambda server, pending, keep, tally, concurrency: keep(half))
    job: Any = SimpleNamespace(dir=tmp_path, progress=lambda *done: None)
    server: Any = SimpleNamespace(model="m")
    for _ in range(2):  # asked, then read from its file
        log = requests.AnswerLog(job, server, Tally(), "answers.jsonl", concurrency=1)
        assert log.ask([ChatRequest("a", "m", [], 1)], "asking")["a"].text == "half of a pair: ?"
    assert written_message('"half of a pair: \ud83d"') == "half of a pair: ?", "as messages of proposed cases come"
