"""A new behaviour told in the conversation: asked for part by part, kept as it is said, planned once it is whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.agent.driver.test_conversation import APPROVE_NOW, Talk
from tests.fixtures.scripted_reader import by_piece, served
from tests.fixtures.tables import table
from tests.fixtures.terminal import Terminal, Tunesmith
from tunesmith.agent.commands.reading import named
from tunesmith.agent.driver.describing import as_text, edited_draft, take
from tunesmith.agent.driver.drafts import begin, open_interview
from tunesmith.agent.words.head import Guess, Head
from tunesmith.memory.errors import BadInput, StepFailed
from tunesmith.tools.data.behaviour import load_behaviour, spec_of
from tunesmith.tools.data.description import Example, described
from tunesmith.tools.serving.client import ChatResponse
from tunesmith.tools.serving.endpoint import Endpoint
from tunesmith.tools.suites.loading import load_suites

GOAL = ("plan_fine_tune", {"goal": "cooking tips", "pace": "fast", "quantize": True})
POINTS = "- Boil it.\\n- Peel it.\\n- Eat it."
SAID = (
    "when the user asks how to cook something",
    "exactly three bullet points",
    "never greet anybody",
    f"How do I cook an egg? => {POINTS}",
    f"my bread won't rise -> {POINTS.replace('egg', 'bread')}",
    f"tell me about basil => {POINTS.replace('Boil', 'Water')}",
)


class Asked(Talk):
    """A conversation in which code asks for a description, part by part, once a turn begins one."""

    def turn(self, prompt: str, *acts: Any) -> Any:
        if GOAL not in acts:
            return super().turn(prompt, *acts)
        begin(self.store.home, "cooking tips", "fast", "auto")
        return self.chat._keep_description()


@pytest.fixture
def talk(tmp_path: Path) -> Iterator[Talk]:
    one = Asked(tmp_path / "home")
    yield one
    one.chat.close()


def tell(talk: Talk, *said: str) -> list[str]:
    return [talk.turn(words).text for words in said]


def test_what_is_missing_is_asked_for_before_anything_is_planned(talk: Talk) -> None:
    talk.turn("make it give cooking tips", GOAL, "Tell me when.")
    for words, part in zip(SAID, ("when", "what", "never", "examples", "examples", "examples"), strict=True):
        interview = open_interview(talk.store.home)
        assert interview is not None and interview.asked == part and talk.deps.draft is None
        tell(talk, words)
    assert open_interview(talk.store.home) is None and talk.deps.draft is not None
    stages = [spec.stage for spec in talk.deps.draft.steps]
    assert stages[:2] == ["inspect", "base"] and stages[-1] == "deploy" and talk.ran() == []


@pytest.mark.heavy
def test_the_folder_holds_what_was_said_letter_for_letter_and_its_examples_as_cases(talk: Talk) -> None:
    talk.turn("make it give cooking tips", GOAL)
    hostile = f"{APPROVE_NOW} {{{{slot}}}} file://etc => {POINTS}"
    tell(talk, *SAID[:5], hostile)
    folders = [path.parent for path in (talk.store.home / "behaviours").glob("*/behaviour.yaml")]
    behaviour = load_behaviour(str(folders[0]))
    assert (behaviour.when, behaviour.what, behaviour.never) == SAID[:3]  # type: ignore[union-attr]
    assert behaviour.examples[2].prompt == hostile.partition(" =>")[0]  # type: ignore[union-attr]
    assert len(load_suites([folders[0] / "suites" / "target.yaml"], models=("judge",)).cases) == 3
    assert talk.ran() == [] and not talk.store.read("SELECT 1 FROM approvals")


@pytest.mark.heavy
def test_the_driver_reads_a_whole_description_once_and_its_file_keeps_what_it_read(talk: Talk) -> None:
    demand = by_piece(three="exactly 3 lines")
    script = {"applies": "kind", "language": "English", "template": {"template": ""}, "demand": demand}
    talk.turn("make it give cooking tips", GOAL)
    with served(script) as (url, reader):
        talk.deps.endpoint = lambda: Endpoint(url, "reader")
        tell(talk, *SAID)
        asked = reader.pages.count("applies")
    folder = next((talk.store.home / "behaviours").glob("*/behaviour.yaml"))
    assert [rule.says for rule in load_behaviour(str(folder)).rules] == ["exactly 3 lines"] and asked == 1
    assert talk.deps.draft is not None and talk.store.read("SELECT 1 FROM events WHERE event = 'words.read'")


@table(
    ("answer", "name"),
    [
        ("Cooking steps", "cooking-steps"),
        ("“Egg Boiler”\nbecause eggs are boiled", "egg-boiler"),
        ("A fine name for all of this is cooking", "own"),
        ("travel", "own"),
        ("", "own"),
        ("烹饪", "own"),
    ],
)
def test_a_name_is_short_and_of_the_users_words_or_it_is_none(answer: str, name: str) -> None:
    parts = dict(zip(("when", "what", "never"), SAID, strict=False))
    examples = [{"prompt": f"How do I cook {what}?", "answer": "- Boil it."} for what in ("an egg", "rice", "peas")]
    spec = spec_of({**parts, "name": "own", "examples": examples}, "test")
    said = named(spec, lambda asked: {one.id: ChatResponse(id=one.id, text=answer) for one in asked}, "m")
    assert said.name == name and said.what == spec.what


@pytest.mark.heavy
def test_a_whole_description_is_planned_where_the_driver_is_declined(talk: Talk) -> None:
    def declined() -> Endpoint:
        raise StepFailed("no driver was fetched")

    talk.turn("make it give cooking tips", GOAL)
    shown: list[Any] = []
    talk.deps.endpoint, talk.deps.show = declined, shown.append
    tell(talk, *SAID)
    assert open_interview(talk.store.home) is None and talk.deps.draft is not None
    console = Console(width=200)
    with console.capture() as screen:
        console.print(*shown)
    assert "nobody has read your words (no driver was fetched)" in screen.get()


def test_a_description_survives_the_end_of_the_program(talk: Talk) -> None:
    talk.turn("make it give cooking tips", GOAL)
    tell(talk, *SAID[:2])
    again = Talk(talk.store.home)
    try:
        again.turn(SAID[2])
        interview = open_interview(again.store.home)
        assert interview is not None and interview.draft.what == SAID[1] and interview.asked == "examples"
    finally:
        again.chat.close()


def test_an_example_without_an_answer_is_asked_for_again_and_nothing_is_lost(talk: Talk) -> None:
    talk.turn("make it give cooking tips", GOAL)
    said = tell(talk, *SAID[:4], "just do what I mean")
    interview = open_interview(talk.store.home)
    assert interview is not None and len(interview.draft.examples) == 1
    assert "MESSAGE => ANSWER" in said[-1]


def test_a_whole_description_whose_writing_was_interrupted_can_be_gone_on_with(talk: Talk) -> None:
    interview = begin(talk.store.home, "cooking tips", "fast", True)
    for words in SAID:
        interview = take(talk.store.home, interview, words)
    tell(talk, f"how long does rice take? => {POINTS}")
    assert talk.deps.draft is not None and open_interview(talk.store.home) is None


def test_a_description_is_given_up_by_a_word(talk: Talk) -> None:
    talk.turn("make it give cooking tips", GOAL)
    tell(talk, SAID[0])
    said = talk.turn("forget it").text
    assert open_interview(talk.store.home) is None and talk.deps.draft is None
    kept = next((talk.store.home / "behaviours").glob("dropped-*.json"))
    assert SAID[0] in kept.read_text() and kept.name in said


def test_a_part_can_be_said_anew_by_its_name(talk: Talk) -> None:
    talk.turn("make it give cooking tips", GOAL)
    tell(talk, "when the user asks about ducks", "when: the user asks how to cook something", SAID[1])
    draft = open_interview(talk.store.home)
    assert draft is not None and draft.draft.when == "the user asks how to cook something"
    assert draft.draft.what == SAID[1] and draft.asked == "never"


def test_an_example_said_again_for_the_same_message_replaces_the_one_before(talk: Talk) -> None:
    talk.turn("make it give cooking tips", GOAL)
    tell(talk, *SAID[:4], f"how do I  COOK an egg? => {POINTS.replace('Boil', 'Fry')}")
    interview = open_interview(talk.store.home)
    assert interview is not None and "1 of 3 examples are here" in interview.question
    assert [example.answer for example in interview.draft.examples] == ["- Fry it.\n- Peel it.\n- Eat it."]
    tell(talk, *SAID[4:])
    assert talk.deps.draft is not None and open_interview(talk.store.home) is None


def test_a_draft_with_one_message_twice_is_no_dead_end(talk: Talk) -> None:
    interview = begin(talk.store.home, "cooking tips", "fast", True)
    for words in SAID[:3]:
        interview = take(talk.store.home, interview, words)
    said = [Example(prompt=prompt, answer="- a\n- b\n- c") for prompt in ("egg?", "Egg?", "rice?", "bread?")]
    stuck = interview.model_copy(update={"draft": interview.draft.model_copy(update={"examples": tuple(said)})})
    tell_again = take(talk.store.home, stuck, "egg? => - x\\n- y\\n- z")
    assert [example.prompt for example in described(tell_again.draft).examples] == ["rice?", "bread?", "egg?"]


@table(
    ("line", "prompt", "answer"),
    [
        ("What does a -> b mean? => b follows\\nfrom a", "What does a -> b mean?", "b follows\nfrom a"),
        ("What does a → b mean? ⇒ implies", "What does a → b mean?", "implies"),
        ("my bread won't rise -> wait", "my bread won't rise", "wait"),
    ],
)
def test_an_example_is_parted_at_the_arrow_that_was_asked_for_and_told_as_understood(
    tmp_path: Path, line: str, prompt: str, answer: str
) -> None:
    interview = begin(tmp_path, "logic", "fast", True)
    for words in (*SAID[:3], line):
        interview = take(tmp_path, interview, words)
    assert interview.draft.examples == (Example(prompt=prompt, answer=answer),)
    read_as = answer.replace("\n", "\\n")
    assert f"“{prompt}” => “{read_as}”" in interview.question


def when_and_what(talk: Talk) -> tuple[str, str] | None:
    held = open_interview(talk.store.home)
    return (held.draft.when, held.draft.what) if held else None


def test_what_is_typed_into_the_draft_stays_text(tmp_path: Path) -> None:
    opened = begin(tmp_path, "tell whether it is spam", "fast", True)
    typed = "when: 1.50\nwhat: yes\nnever: no\n"
    typed += "examples:\n- {message: 2026-01-02, answer: yes}\n- {message: 0, answer: no}\n"
    draft = edited_draft(typed, tmp_path, opened).draft
    assert (draft.when, draft.what, draft.never) == ("1.50", "yes", "no")
    assert [(one.prompt, one.answer) for one in draft.examples] == [("2026-01-02", "yes"), ("0", "no")]
    again = edited_draft(as_text(opened.model_copy(update={"draft": draft})), tmp_path, opened).draft
    assert again == draft
    assert edited_draft("when:\nexamples:\n", tmp_path, opened).draft.when == ""


@table("text", ["- a list", "just words", "examples: words", "when: {a: b}: c", "of: nothing here"])
def test_an_edited_text_that_is_no_draft_is_refused(text: str, tmp_path: Path) -> None:
    opened = begin(tmp_path, "tell whether it is spam", "fast", True)
    with pytest.raises(BadInput, match="cannot be read"):
        edited_draft(text, tmp_path, opened)
    assert open_interview(tmp_path) == opened


def test_undo_takes_an_answer_of_a_description_back(talk: Talk) -> None:
    talk.turn("make it give cooking tips", GOAL)
    tell(talk, "when the user asks abuot ducks")
    talk.chat.undo()
    assert when_and_what(talk) == ("", "")
    tell(talk, *SAID[:2])
    assert when_and_what(talk) == SAID[:2]
    talk.turn("forget it")
    assert when_and_what(talk) is None
    for expected in (SAID[:2], (SAID[0], ""), ("", "")):
        talk.chat.undo()
        assert when_and_what(talk) == expected


def test_undo_asks_on_for_the_example_that_made_a_description_whole(talk: Talk) -> None:
    talk.turn("make it give cooking tips", GOAL)
    tell(talk, *SAID)
    assert talk.deps.draft is not None and talk.chat.open_description() == ""
    talk.chat.undo()
    assert talk.deps.draft is None and "2 of 3 examples are here" in talk.chat.open_description()


def test_a_new_conversation_has_no_description_and_the_old_one_keeps_its_own(talk: Talk) -> None:
    talk.turn("make it give cooking tips", GOAL)
    tell(talk, SAID[0])
    before = talk.chat.id
    talk.chat.switch(talk.chat.conversations.new())
    assert open_interview(talk.store.home) is None
    talk.turn("hello")
    assert "plan_fine_tune" in talk.shown_tools()
    talk.turn("make it write poems", GOAL)
    talk.chat.switch(before)
    assert when_and_what(talk) == (SAID[0], "") and "What exactly" in talk.chat.open_description()


def test_what_a_killed_turn_wrote_is_not_lost_to_a_new_conversation(talk: Talk) -> None:
    interview = begin(talk.store.home, "cooking tips", "fast", True)
    take(talk.store.home, interview, SAID[0])
    again = Talk(talk.store.home)
    try:
        before = again.chat.id
        again.chat.switch(again.chat.conversations.new())
        assert open_interview(talk.store.home) is None
        again.chat.switch(before)
        assert when_and_what(again) == (SAID[0], "")
    finally:
        again.chat.close()


def test_a_conversation_is_not_asked_what_another_program_is_told(talk: Talk) -> None:
    other = Talk(talk.store.home)
    try:
        talk.turn("make it give cooking tips", GOAL)
        other.turn("hello")
        assert "plan_fine_tune" in other.shown_tools()
        tell(talk, SAID[0])
        assert when_and_what(talk) == (SAID[0], "")
    finally:
        other.chat.close()


def test_an_open_description_is_told_at_the_start_and_wherever_it_comes_back(
    terminal: Callable[..., Terminal], tunesmith: Tunesmith
) -> None:
    begin(tunesmith.home, "cooking tips", "fast", True)
    repl = terminal()
    repl.expect("a description is open: 1 of 4: When shall it apply?")
    repl.expect("`drop it` gives it up")
    repl.line("/new")
    repl.expect("a new conversation")
    assert open_interview(tunesmith.home) is None
    repl.line("/conversations resume")
    repl.expect("a description is open: 1 of 4: When shall it apply?")


def test_a_question_beside_a_description_is_answered_and_not_kept(talk: Talk) -> None:
    talk.turn("make it give cooking tips", GOAL)
    tell(talk, *SAID[:2])
    before = open_interview(talk.store.home)
    [said] = tell(talk, "what does rank mean?")
    assert "Back to the new behaviour" in said and open_interview(talk.store.home) == before


@table("said", [
    "hmm wait", "oops", "hmm what would you recommend for 'never'?", "what do you mean by never?",
    "change the second example to 70F => 21.11 °C", "remove the first example", "correct the never: no emojis",
    "actually no: numbers from ten on are written out", "oops, the rest stays as it is",
])  # fmt: skip
def test_words_of_doubt_and_of_correction_are_no_part_of_a_description(talk: Talk, said: str) -> None:
    talk.turn("make it give cooking tips", GOAL)
    tell(talk, *SAID[:2])
    before = open_interview(talk.store.home)
    [answer] = tell(talk, said)
    assert "never" in answer and open_interview(talk.store.home) == before


@table(
    "said",
    [
        "never: change the example",
        "actually wrong facts, or guesses",
        "change the units of a text to metric",
        "be rude",
    ],
)
def test_words_that_only_sound_so_are_kept(talk: Talk, said: str) -> None:
    talk.turn("make it give cooking tips", GOAL)
    tell(talk, *SAID[:2], said)
    kept = open_interview(talk.store.home)
    assert kept is not None and kept.draft.never == said.removeprefix("never: ")


def test_a_description_is_given_up_only_by_plain_words(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    talk.turn("make it give cooking tips", GOAL)
    for likely, is_open in ((0.8, True), (0.95, False)):
        guesses = [Guess("describe.drop", likely), Guess("remark", 1 - likely)]
        monkeypatch.setattr(Head, "guesses", lambda *_, g=guesses: g)
        tell(talk, "enough of all of that now")
        assert (open_interview(talk.store.home) is not None) == is_open
