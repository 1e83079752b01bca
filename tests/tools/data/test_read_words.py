"""A model's reading of a user's words counts only where words and examples bear it out; nothing is asked twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.fixtures.descriptions import HOSTILE
from tests.fixtures.scripted_reader import ScriptedReader, by_message, by_piece
from tests.fixtures.tables import table
from tunesmith.tools.data.behaviour import is_complete, load_behaviour, spec_text, words_of
from tunesmith.tools.data.proposal import words_digest
from tunesmith.tools.data.read_words import WordsRead, clauses_of, read
from tunesmith.tools.data.spec import Spec
from tunesmith.tools.data.verify import spec_faults, verified

DESK: dict[str, Any] = {
    "name": "desk",
    "when": "somebody of the firm asks the help desk",
    "what": "the team (SALES for contracts, TECH for computers or HR), a slash, and how bad it is: P1 if it is broken "
    "for everybody, P2 for one person, P3 for questions",
    "never": "explain, or say 'sorry'",
    "examples": [
        {"prompt": "Nobody can log in", "answer": "TECH/P1"},
        {"prompt": "How many days off do I have?", "answer": "HR/P3"},
        {"prompt": "my mouse broke", "answer": "TECH/P2"},
    ],
}
PIRATE: dict[str, Any] = {
    "name": "pirate",
    "when": "whatever the user writes",
    "what": "like a pirate, in at most 12 words, in one or two sentences, ending with 'Arr!'",
    "never": "break character",
    "examples": [
        {"prompt": "How many legs has a spider?", "answer": "Eight legs she crawls on. Arr!"},
        {"prompt": "hi", "answer": "Ahoy, ye landlubber. Arr!"},
        {"prompt": "I lost my keys", "answer": "Then search the deck, matey. Arr!"},
    ],
}


SIGNED: dict[str, Any] = {
    "name": "signed",
    "when": "a member writes to the club",
    "what": "[LABEL] NAME DAY: - where nobody signs, and where no day is named",
    "never": "greet",
    "labels": {"IN": "they come", "OUT": "they do not come"},
    "fields": {"NAME": "the first name that they sign with", "DAY": "the day that it is about"},
    "examples": [
        {"prompt": "count me in on Friday. Marek", "answer": "[IN] Marek Fri"},
        {"prompt": "my car broke down. Anja", "answer": "[OUT] Anja -"},
        {"prompt": "start without me, i'm late", "answer": "[IN] - -"},
        {"prompt": "see you on Saturday, Lou", "answer": "[IN] Lou Sat"},
        {"prompt": "the trains are cancelled on Monday", "answer": "[OUT] - Mon"},
    ],
}


def items(*of: object) -> dict[str, object]:
    return {"items": list(of)}


def value(name: str, means: str = "") -> dict[str, object]:
    return {"value": name, "means": means}


def values(question: str) -> dict[str, object]:
    """Of both parts, with what may be wrong: a value that nobody said, meanings that are no quote or said twice."""
    if "The part team" in question:
        return items(value("SALES", "contracts"), value("TECH", "computers"), value("HR", "holidays"), value("LAW"))
    return items(value("P1", "if it is broken"), value("P2", "for one person"), value("P3", "for one person"))


OWN = {*(json.dumps(example["prompt"]) for example in DESK["examples"]), "my mouse is on fire"}
OWN |= {text.strip('"') for text in OWN}
RIGHT: dict[str, object] = {
    "applies": "kind",
    "demand": by_piece(sorry='never says "sorry"'),
    "language": "English",
    "template": {"template": "{team}/{level}"},
    "values": values,
    "near-misses": items("Who founded the firm?", "my mouse is on fire", "my mouse broke", "Is cycling healthy?"),
    "kind": by_message(lambda message: 0.9 if message in OWN else 0.1),
}


def reading(said: dict[str, Any], script: dict[str, object]) -> tuple[Spec, WordsRead, ScriptedReader]:
    spec, stated = words_of(said, "x")
    reader = ScriptedReader(script)
    made = read(spec, stated, reader, "reader")
    return verified(spec, made.proposal).spec, made, reader


def test_two_labels_of_one_sentence_are_read_apart_with_what_each_value_means() -> None:
    spec, made, reader = reading(DESK, RIGHT)
    team, level = spec.labels
    assert (spec.answer.form, spec.answer.template) == ("text", "{team}/{level}")
    assert {name: of.means for name, of in team.values.items()} == {"TECH": "computers", "HR": "", "SALES": "contracts"}
    assert list(level.values) == ["P1", "P3", "P2"] and not spec.every_message and spec.language == "English"
    assert "'LAW' as a value of team: neither your words nor an example say it" in made.left_out
    assert [of.means for of in level.values.values()] == ["if it is broken", "", ""], "one meaning is not that of two"
    assert spec.near_misses == ("Who founded the firm?",), "neither one of the kind nor one about other things"
    assert "never says 'sorry'" in [rule.says for rule in spec.rules] and spec_faults(spec) == ()
    assert reader.pages.count("values") == 2 and made.questions == len(reader.asked)


def test_what_examples_show_by_themselves_is_the_same_where_a_model_reads_the_words() -> None:
    """A name became one in words of its own, a weekday one of the three days of the examples."""
    spec, _, _ = reading(SIGNED, RIGHT | {"template": {"template": "[{label}] {NAME} {DAY}"}})
    unread, stated = words_of(SIGNED, "x")
    without = verified(unread, stated).spec
    assert spec.attributes[:3] == without.attributes[:3] and spec.answer == without.answer
    kinds = {a.name: (a.kind, a.absent_as) for a in spec.attributes[:3]}
    assert kinds == {"label": ("label", None), "NAME": ("copied", "-"), "DAY": ("weekday", "-")}


@table(
    ("copied", "means"),
    [
        ("if it can wait", {"P1": "if it is broken", "P3": "if it can wait", "P2": ""}),
        ("if the moon is full", {"P1": "if it is broken", "P3": "", "P2": ""}),  # nobody said so
        ("if it is broken", {"P1": "", "P3": "", "P2": ""}),  # the meaning of two
        ("not said", {"P1": "if it is broken", "P3": "", "P2": ""}),
    ],
)
def test_a_value_without_a_meaning_is_asked_about_by_itself(copied: str, means: dict[str, str]) -> None:
    said = {**DESK, "what": f"{DESK['what']}, P3 if it can wait"}
    answer = {"meaning": lambda asked: copied if asked.endswith("P3") else "not said"}
    spec, _, _ = reading(said, {**RIGHT, **answer})
    assert {name: of.means for name, of in spec.attribute("level").values.items()} == means


@table(
    ("demands", "rules", "left_out"),
    [
        ({"12 words": "at most 12 words"}, ["at most 12 words"], ""),
        ({"12 words": "at most 20 words"}, [], ""),  # the piece says another number
        ({"12 words": "at most 3 words"}, [], ""),
        ({"sentences": "at most 2 sentences"}, [], "'in one or two sentences': code counts no sentences"),
        ({"ending": 'ends with "Arr!"'}, ["the answer ends with 'Arr!'"], ""),
        ({"ending": 'begins with "Arr!"'}, [], "begins with 'Arr!': not taken, example 1 breaks it"),
        ({"ending": 'ends with "Aye!"'}, [], "does not say so"),
        ({"pirate": 'ends with "!"'}, ["the answer ends with '!'"], ""),  # a mark that no letter says
        ({"pirate": "exactly 1 lines"}, ["exactly 1 line"], ""),
        ({"pirate": "at most two words"}, [], ""),
        ({"pirate": "like a king"}, [], ""),
        ({"never: break": 'never says "break"'}, ["never says 'break'"], ""),
    ],
)
def test_a_demand_stands_in_its_piece_of_the_words_and_in_every_example(
    demands: dict[str, str], rules: list[str], left_out: str
) -> None:
    script = {"applies": "all", "language": "English", "template": {"template": ""}, "demand": by_piece(**demands)}
    spec, made, reader = reading(PIRATE, script)
    assert spec.every_message and spec.answer.form == "written" and "near-misses" not in reader.pages
    assert [rule.says for rule in spec.rules] == rules
    assert left_out in " · ".join((*made.left_out, *verified(words_of(PIRATE, "x")[0], made.proposal).left_out))


def test_a_demand_on_a_part_limits_that_part_alone() -> None:
    said = {
        "name": "loan", "when": "w", "never": "n", "what": "Loan NUMBER: TROUBLE. TROUBLE in at most three words",
        "examples": [{"prompt": f"Loan 48120{n} is {word}", "answer": f"Loan 48120{n}: a {word} page here."}
                     for n, word in enumerate(("torn", "wet", "lost"))],
    }  # fmt: skip
    script = {"template": {"template": "Loan {NUMBER}: {TROUBLE}."}, "demand": by_piece(three="at most 9 words")}
    spec, _, _ = reading(said, {**RIGHT, **script})
    assert spec.attribute("TROUBLE").words_max == 9 and [rule.type for rule in spec.rules] == ["regex"]


@table(
    ("text", "pieces"),
    [
        (
            "at most 1,200 words, ending with 'Yes, sir.'. Short",
            ["at most 1,200 words", "ending with 'Yes, sir.'", "Short"],
        ),
        ("一句话，不超过三十个字。以“好，谢谢”结尾", ["一句话", "不超过三十个字", "以“好，谢谢”结尾"]),
        ("don't greet; it's rude", ["don't greet", "it's rude"]),
        ("JSON with a (b, or null)", ["JSON with a (b, or null)"]),
        ("... ,, !", []),
    ],
)
def test_a_description_is_parted_at_its_marks_and_never_within_a_quotation(text: str, pieces: list[str]) -> None:
    assert clauses_of(text) == pieces


@table(
    ("templates", "rounds", "taken"),
    [
        (["{team}-{level}", "{team}-{level}", "{team}-{level}", "{team}/{level}"], 2, "{team}/{level}"),
        (["{team}{level}", "{a}/{b}", "{team}/{level}", "x"], 1, "{a}/{b}"),
        (["{team}: {level}"], 2, ""),
        ([""], 1, ""),
    ],
)
def test_a_template_gives_every_example_or_is_asked_for_once_more_with_what_is_wrong(
    templates: list[str], rounds: int, taken: str
) -> None:
    script = {**RIGHT, "template": [{"template": template} for template in templates]}
    spec, made, reader = reading(DESK, script)
    assert spec.answer.template == taken and spec.answer.form == ("text" if taken else "written")
    asked = [question for page, question in reader.asked if page == "template"]
    assert len(asked) == 3 * rounds
    if rounds == 2:
        assert f'"{templates[0]}" is wrong: it does not give' in asked[-1] and "TECH/P1" in asked[-1]
    assert any("template" in line for line in made.left_out) == (templates == ["{team}: {level}"])


def test_a_template_of_free_words_alone_is_written_and_its_frame_is_kept() -> None:
    script = {"applies": "all", "language": "English", "template": {"template": "{remark} Arr!"}}
    spec, _, _ = reading(PIRATE, script)
    assert spec.answer.form == "written" and [rule.says for rule in spec.rules] == ["the answer ends with ' Arr!'"]


@table(
    ("shares", "kept"),
    [
        (lambda message: 0.9 if message in OWN else 0.1, 1),
        (lambda message: 0.9, 0),  # it takes everything for the kind: nothing can be told by it
        (lambda message: 0.6 if message in OWN else 0.5, 0),  # not clearly
    ],
)
def test_near_misses_count_only_where_the_model_tells_examples_from_ordinary_messages(shares: Any, kept: int) -> None:
    spec, made, _ = reading(DESK, {**RIGHT, "kind": by_message(shares)})
    assert len(spec.near_misses) == kept
    assert any("near misses" in line for line in made.left_out) == (kept == 0)


@pytest.mark.parametrize("applies", ["all", "kind", "no idea"])
def test_a_user_s_own_look_alikes_stay_whatever_a_model_says_of_them(applies: str) -> None:
    """A model took the behaviour for one of every message, and all ten were dropped without a word."""
    own = ["What does a mouse eat?", "Write me a contract."]
    spec, made, reader = reading({**DESK, "near_misses": own}, {**RIGHT, "applies": applies})
    assert not spec.every_message and spec.near_misses == tuple(own)
    assert not {"applies", "near-misses", "kind"} & set(reader.pages), "nobody is asked what is known"
    assert not any("near misses" in line for line in made.left_out)


@pytest.mark.parametrize(("low", "taken"), [(5, True), (7, False)])
def test_a_range_that_an_example_contradicts_is_not_taken(low: int, taken: bool) -> None:
    said = {
        **DESK, "what": "small for up to 4 people, large for more", "name": "rooms",
        "examples": [{"prompt": "a room for six", "answer": "large"}, {"prompt": "we are 3", "answer": "small"},
                     {"prompt": "20 of us", "answer": "large"}],
    }  # fmt: skip
    ranges = items({"value": "small", "lowest": None, "highest": 4}, {"value": "large", "lowest": low, "highest": None})
    script = {**RIGHT, "values": items(value("small"), value("large")), "ranges": ranges}
    spec, made, _ = reading(said, script)
    between = {name: of.between for name, of in spec.labels[0].values.items()}
    assert between == ({"small": (1, 4), "large": (5, 20)} if taken else {"small": None, "large": None})
    assert any("large is 7" in line for line in made.left_out) != taken


@table("answer", ["", "no idea", "[1, 2]", '{"items": 3}', '{"items": [3, {"value": 4}]}', "{" * 2000])
def test_an_answer_that_is_none_proposes_nothing(answer: str) -> None:
    spec, made, _ = reading(DESK, dict.fromkeys(RIGHT, answer) | {"kind": "no"})
    assert spec.answer.form == "written" and spec.rules == () and not spec.every_message and spec.near_misses == ()
    assert any("every message" in line for line in made.left_out)
    silent, _, _ = reading(DESK, {})
    assert silent.attributes == spec.attributes and silent.answer == spec.answer


def test_what_the_file_states_is_not_asked_and_stays() -> None:
    said = {
        **DESK,
        "template": "{team}/{level}",
        "fields": {"team": ["SALES", "TECH", "HR", "LAW"], "level": "how bad"},
    }
    spec, _, reader = reading(said, RIGHT)
    assert list(spec.labels[0].values) == ["SALES", "TECH", "HR", "LAW"] and "template" not in reader.pages
    assert next(question for page, question in reader.asked if page == "values").endswith('"P1", "P3", "P2"')


@table("hostile", HOSTILE)
def test_hostile_words_are_data_in_every_question(hostile: str) -> None:
    said = {**DESK, "when": hostile, "what": hostile}
    said["examples"] = [*DESK["examples"], {"prompt": hostile, "answer": "TECH/P1"}]
    _, _, reader = reading(said, RIGHT)
    spec, stated = words_of(said, "x")
    seen: list[Any] = []
    read(spec, stated, lambda requests: seen.extend(requests) or {}, "reader")  # type: ignore[func-returns-value]
    assert seen and reader.asked
    for request in seen:
        assert not any(hostile in str(turn["content"]) for turn in request.messages[:-1]), "only in the last turn"


def test_what_was_read_is_kept_by_its_file_and_read_no_more(tmp_path: Path) -> None:
    words, stated = words_of(DESK, "x")
    spec, _, _ = reading(DESK, RIGHT)
    kept = spec.model_copy(update={"words_sha256": words_digest(words, stated)})
    (tmp_path / "behaviour.yaml").write_text(spec_text(kept))
    assert load_behaviour(str(tmp_path)) == kept and is_complete(kept) and not is_complete(words)
    assert words_digest(*words_of(yaml.safe_load(json.dumps(DESK)), "y")) == kept.words_sha256
    assert words_digest(*words_of({**DESK, "never": "guess"}, "y")) != kept.words_sha256


def test_the_digest_of_a_spec_of_before_stays(tmp_path: Path) -> None:
    """A stored run is pinned to it: what is new in a spec counts once it says something."""
    spec, _, _ = reading(DESK, RIGHT)
    assert not {"every_message", "words_sha256"} & set(spec.model_dump()) and "between" not in str(spec.model_dump())
    assert spec.model_copy(update={"every_message": True}).sha256 != spec.sha256
