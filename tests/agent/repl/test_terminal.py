"""The prompt as a terminal program: help by topic, pastes, the editor, questions at a price, narrow windows."""

from __future__ import annotations

import re
import stat
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.driver.exam_home import make_exam_home
from tests.fixtures.terminal import Terminal, Tunesmith
from tunesmith.agent.driver.drafts import open_interview
from tunesmith.memory.store import Store

pytestmark = pytest.mark.heavy

Open = Callable[..., Terminal]
PROMPT = "tunesmith ❯"


def ready(repl: Terminal) -> Terminal:
    repl.expect(PROMPT)
    repl.at_prompt()
    return repl


def test_help_knows_topics_and_says_which(terminal: Open) -> None:
    repl = ready(terminal())
    place = repl.line("/help keys")
    repl.expect("Ctrl-R", after=place)
    place = repl.line("/help describ")
    repl.expect("did you mean /help describe?", after=place)
    place = repl.line("/help train")
    repl.expect("lora_rank", after=place)


def test_lines_that_are_pasted_are_one_message_and_none_is_sent_half(terminal: Open, tunesmith: Tunesmith) -> None:
    """Also on a terminal that does not mark a paste: the lines come in one moment, each with its Enter."""
    repl = ready(terminal())
    time.sleep(1.0)
    place = repl.type("first half of it\rsecond half of it")
    repl.expect("second half of it", after=place)
    store = Store(tunesmith.home)
    assert "half of it" not in _said(store), "an Enter in a paste sends nothing"
    assert "do not know" not in repl.text
    repl.line("")
    repl.wait(lambda: "first half of it\\nsecond half of it" in _said(store))


def _said(store: Store) -> str:
    return repr([tuple(row) for row in store.read("SELECT * FROM conversations")])


def test_a_question_at_a_price_is_answered_and_the_price_stands_again(
    terminal: Open, model_folder: Path, tunesmith: Tunesmith
) -> None:
    repl = ready(terminal())
    repl.expect(PROMPT)
    time.sleep(2.0)  # the conversation is loaded behind the prompt
    place = repl.line(f"/base model={model_folder}")
    repl.expect("Start?", after=place)
    time.sleep(0.8)
    place = repl.answer("how much ram does this machine have?")
    repl.expect("free RAM", after=place)
    repl.expect("Start?", after=repl.text.index("free RAM", place))
    store = Store(tunesmith.home)
    assert store.read("SELECT * FROM approvals") == [] and store.step("s1").pid is None
    place = repl.line("no, just testing")
    repl.expect("declined", after=place)
    assert store.read("SELECT reason FROM approvals")[0]["reason"] == "no, just testing"


def test_a_draft_goes_through_the_users_editor_word_for_word(
    terminal: Open, tunesmith: Tunesmith, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\nsed -i "s/^what: .*/what: \'one line: a \\"haiku\\" (5-7-5), no title\'/" "$1"\n')
    editor.chmod(editor.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("EDITOR", str(editor))
    monkeypatch.delenv("VISUAL", raising=False)
    repl = ready(terminal())
    for words, then in (
        ("I want a model that answers in haiku about the weather", "1 of 4: When shall it"),
        ("when somebody asks: how is the weather?", "What exactly"),
        ("edit", "What must the answer never do"),
    ):
        place = repl.line(words)
        repl.expect(then, after=place)
        repl.expect(PROMPT, after=place + len(words) + 20)
    draft = open_interview(tunesmith.home)
    assert draft and draft.draft.when == "when somebody asks: how is the weather?"
    assert draft.draft.what == 'one line: a "haiku" (5-7-5), no title'


@pytest.mark.parametrize("size", [(24, 40), (50, 240)], ids=["narrow", "wide"])
def test_no_colour_is_shown_where_none_is_wanted_at_any_width(
    tunesmith: Tunesmith, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    make_exam_home(tunesmith.home)
    repl = Terminal((), tunesmith.env, size=size)
    try:
        ready(repl)
        for words, then in (("how many runs are there?", "runs 2"), ("/runs", "r1 "), ("gpu?", "free RAM")):
            place = repl.line(words)
            repl.expect(then, after=place)
        assert not re.search(rb"\x1b\[(?:[0-9;]*;)?(?:3[0-7]|4[0-7]|9[0-7])m", repl.raw)
        assert "Traceback" not in repl.text and "pydantic" not in repl.text
    finally:
        repl.close()
