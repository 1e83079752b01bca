"""A proposal is held to the examples: what they bear out becomes the spec, a wrong one is refused or mended."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.fixtures.behaviours import ALL
from tests.fixtures.tables import table
from tunesmith.memory.errors import BadInput
from tunesmith.tools.data.answer_rules import Check
from tunesmith.tools.data.behaviour import spec_of
from tunesmith.tools.data.proposal import Part, Proposal
from tunesmith.tools.data.reading import disagreements
from tunesmith.tools.data.spec import Attribute, Spec, Value
from tunesmith.tools.data.verify import gives_back, spec_faults, verified
from tunesmith.tools.data.writer_requests import listed_values


def words(what: str, examples: dict[str, str], **more: Any) -> Spec:
    shown = [{"prompt": prompt, "answer": answer} for prompt, answer in examples.items()]
    return Spec(**{"name": "own", "when": "w", "what": what, "never": "n", "examples": shown, **more})


DESK = words(
    "TEAM/PRIORITY",
    {"Nobody can log in": "TECH/P1", "How many days off?": "HR/P3", "my mouse broke": "TECH/P2"},
)
LOAN = words(
    "Loan NUMBER: TROUBLE.",
    {"Loan 481203 came torn": "Loan 481203: torn page.", "can't renew 551907": "Loan 551907: failed renewal.",
     "My fine is too high!": "Which loan?"},
)  # fmt: skip
TWO_ODD = words("x", {"m": "TECH/P1", "n": "HR/P3", "o": "TECH/P2", "p": "ask again", "q": "nobody"})
REVIEW = words("好评 差评 中评", {"物流很快": "好评", "太差了": "差评", "一般般吧": "中评"})


def part(name: str, *values: str, **more: Any) -> Part:
    return Part(name=name, values={value: Value() for value in values}, **more)


def shown(spec: Spec) -> dict[str, list[str] | str]:
    return {a.name: list(a.values) or a.kind for a in spec.attributes if a.shown}


LEVELS = ("P1", "P2", "P3")
BOTH = ("TECH", "HR", *LEVELS)


@table(
    ("spec", "proposal", "attributes", "left_out"),
    [
        (DESK, {"template": "{team}/{level}", "parts": (part("team", "TECH", "HR", "SALES"), part("level", *LEVELS))},
         {"team": ["TECH", "HR", "SALES"], "level": ["P1", "P2", "P3"]}, ""),
        (DESK, {"template": "{team}/{level}", "parts": (part("team", *BOTH), part("level", *BOTH))},
         {"team": ["TECH", "HR"], "level": ["P1", "P2", "P3"]}, "a value of another part, so it was taken out of team"),
        (DESK, {"template": "{team}/{level}", "parts": (part("team", "TECH", "SALES"),)},
         {"team": ["TECH", "SALES", "HR"], "level": "text"}, "HR was added to the values of team"),
        (DESK, {"template": "{team}/{level}", "parts": (part("team", "red", "blue"),)},
         {"team": "text", "level": "text"}, "team is no choice of red, blue: the examples show TECH, HR"),
        (DESK, {"template": "{team}-{level}"}, {}, "'{team}-{level}' is not taken: it does not give 'TECH/P1'"),
        (DESK, {"template": "{team}{level}"}, {}, "side by side"),
        (DESK, {"template": "{a}/{a}"}, {}, "it does not give"),
        (DESK, {"template": "TECH"}, {}, "it has no {name}"),
        (DESK, {"parts": (part("a"), part("b"), part("c"))}, {}, "have not 3 parts (a, b, c)"),
        (TWO_ODD, {"template": "{team}/{level}"}, {}, "is not taken: it does not give 'ask again'"),
        (DESK, {"labels": {"TECH/P1": Value(), "HR/P3": Value()}}, {}, "'TECH/P2', which is none of the values"),
        (LOAN, {"template": "Loan {NUMBER}: {TROUBLE}."}, {"NUMBER": "digits", "TROUBLE": "text"}, ""),
        (LOAN, {"template": "Loan {NUMBER}: {TROUBLE}.", "parts": (part("NUMBER", kind="time"),)},
         {"NUMBER": "digits", "TROUBLE": "text"}, "NUMBER is no time: the examples show '481203'"),
        (LOAN, {"template": "Loan {NUMBER}: {TROUBLE}.", "parts": (part("TROUBLE", kind="copied"),)},
         {"NUMBER": "digits", "TROUBLE": "text"}, "TROUBLE is not copied"),
        (LOAN, {"template": "Loan {NUMBER}: {TROUBLE}.", "parts": (part("TROUBLE", words_max=1),)},
         {"NUMBER": "digits", "TROUBLE": "text"}, "TROUBLE has at most 1 words: not taken, an example has 2"),
        (REVIEW, {"labels": part("x", "好评", "差评", "中评").values}, {"label": ["好评", "差评", "中评"]}, ""),
        (REVIEW, {"template": "{mood}", "parts": (part("mood", "好评", "差评"),)},
         {"mood": ["好评", "差评", "中评"]}, "中评 was added"),
        (REVIEW, {"form": "written"}, {}, ""),
        (DESK, {"parts": (part("level", *LEVELS), part("team", "TECH", "HR"))},
         {"team": ["TECH", "HR"], "level": ["P1", "P2", "P3"]}, ""),
        (DESK, {"labels": part("x", "TECH", "HR", "SALES").values, "parts": (part("level"),)},
         {"label": ["TECH", "HR", "SALES"], "level": "text"}, ""),
        (DESK, {"labels": part("x", *LEVELS).values, "parts": (part("team", "TECH", "HR"),)},
         {"team": ["TECH", "HR"], "label": ["P1", "P2", "P3"]}, ""),
        (DESK, {"template": "{team}/{level}", "parts": (part("taem", "TECH", "HR"),)},
         {"team": "text", "level": "text"}, "taem: the answers have no such part, but team, level"),
        (DESK, {"labels": part("x", "TECH", "SALES").values, "parts": (part("level"),)},
         {"level": "text"}, "no part of the answers has only the labels TECH, SALES"),
    ],
)  # fmt: skip
def test_a_form_is_taken_where_it_gives_every_example_and_what_is_wrong_is_named(
    spec: Spec, proposal: dict[str, Any], attributes: dict[str, Any], left_out: str
) -> None:
    made = verified(spec, Proposal(**proposal))
    assert shown(made.spec) == attributes
    assert (left_out in " · ".join(made.left_out)) if left_out else made.left_out == ()
    assert made.spec.answer.form == "written" or all(gives_back(made.spec, one) for one in made.spec.examples)
    assert spec_faults(made.spec) == ()


def test_the_text_that_one_answer_has_alone_is_answered_where_a_value_is_missing() -> None:
    made = verified(LOAN, Proposal(template="Loan {NUMBER}: {TROUBLE}.")).spec
    assert (made.answer.otherwise, made.answer.needs) == ("Which loan?", ("NUMBER",))
    assert made.attribute("NUMBER").absent_share > 0 and made.attribute("NUMBER").lengths == (6,)


@table(
    ("proposal", "changes", "left_out"),
    [
        ({"checks": (Check(kind="at most", count=1, unit="lines"),)}, {"rules": ["at most 1 line"]}, ""),
        ({"checks": (Check(kind="at least", count=9, unit="words"),)}, {"rules": []},
         "at least 9 words: not taken, example 1 breaks it"),
        ({"checks": (Check(kind="never says", text="tech"),)}, {"rules": []}, "never says 'tech': not taken"),
        ({"near_misses": ("Nobody can  log in!", "Who is HR?")}, {"near_misses": ("Who is HR?",)}, "are examples"),
        ({"every_message": True, "near_misses": ("Who leads HR?",)}, {"near_misses": (), "every_message": True}, ""),
        ({"language": "Chinese"}, {"language": "English"}, "the messages are not in Chinese"),
        ({"language": "Danish"}, {"language": "Danish"}, ""),
    ],
)  # fmt: skip
def test_what_the_examples_contradict_is_left_out(
    proposal: dict[str, Any], changes: dict[str, object], left_out: str
) -> None:
    made = verified(DESK, Proposal(**proposal))
    spec = {**made.spec.model_dump(), "rules": [rule.says for rule in made.spec.rules]}
    spec["near_misses"] = made.spec.near_misses
    assert {name: spec[name] for name in changes} == changes
    assert (left_out in " · ".join(made.left_out)) if left_out else made.left_out == ()


@table(
    ("messages", "language", "taken"),
    [
        (("物流很快", "太差了", "一般般吧"), "Chinese", "Chinese"),
        (("物流很快", "太差了", "一般般吧"), "German", "Chinese or Japanese"),
        (("Wo ist mein Paket?", "Die Lampe ist kaputt", "Kann ich das umtauschen?"), "English", "German"),
        (("Wo ist mein Paket?", "Die Lampe ist kaputt", "Kann ich das umtauschen?"), "", "German"),
        (("Где моя посылка?", "Лампа сломана", "Можно вернуть?"), "Russian", "Russian"),
        (("def f(x):\n    return x", "x = 1", "print(x)"), "English", "English"),
        (("Kassel, 120 km", "40 km", "Parkhaus"), "", "English"),
        (
            ("Facture F-2210 de 340,50 €.", "Merci de régler la F-1187.", "Relance : F-0931, solde 75 €."),
            "French",
            "French",
        ),
    ],
)
def test_a_language_that_the_messages_contradict_is_not_taken(messages: Any, language: str, taken: str) -> None:
    made = verified(words("x", dict.fromkeys(messages, "y")), Proposal(language=language))
    assert made.spec.language == taken and bool(made.left_out) == (language not in ("", taken))


@table("said", ALL)
def test_no_word_of_a_description_decides_anything_in_code(said: dict[str, Any]) -> None:
    """Only what is stated as data and the examples do."""
    spec = spec_of(said, "x")
    other = dict.fromkeys(("when", "what", "never"), "exactly one of yes or no, always, at most two words, no 'the'")
    changed = spec_of({**said, **other, "say": "five bullet points"}, "x")
    for name in ("attributes", "answer", "rules", "near_misses", "language", "every_message"):
        assert getattr(changed, name) == getattr(spec, name)


def test_a_fixed_answer_is_a_rule() -> None:
    fixed = words("always the same", {"a": "No.", "b": "No.", "c": "No."})
    assert [rule.says for rule in verified(fixed).spec.rules] == ["the answer is always 'No.'"]


ORDERS = words(
    "JSON",
    {
        "Ada wants 2 lamps and 1 rug, urgent": '{"who": {"name": "Ada", "vip": true}, "items": '
        '[{"what": "lamps", "count": 2}, {"what": "rug", "count": 1}], "tags": ["urgent"]}',
        "3 cups for Bo": '{"who": {"name": "Bo", "vip": false}, "items": [{"what": "cups", "count": 3}], "tags": []}',
        "Cy, old and urgent: 4 chairs at 9 pm": '{"who": {"name": "Cy", "vip": false}, "items": '
        '[{"what": "chairs", "count": 4}], "tags": ["urgent", "old"], "at": "21:00"}',
    },
)


def test_objects_and_lists_within_one_another_are_taken_apart_by_the_examples() -> None:
    tags = Part(name="tags", values={"urgent": Value(), "old": Value(), "odd": Value()})
    spec = verified(ORDERS, Proposal(parts=(tags,))).spec
    kinds = {a.name: (a.kind, a.many) for a in spec.value_attributes()}
    assert kinds == {
        "who.name": ("copied", None), "who.vip": ("label", None), "items.what": ("copied", None),
        "items.count": ("number", None), "tags": ("label", (0, 2)), "at": ("time", None), "topic": ("text", None),
    }  # fmt: skip
    assert spec.attribute("items").many == (1, 2) and spec.attribute("at").left_out
    assert all(gives_back(spec, one) for one in spec.examples) and spec_faults(spec) == ()


@table("missing", ["null", ""])
def test_null_that_stands_for_what_a_message_does_not_say_is_that_of_json(missing: str) -> None:
    flats = words("JSON", {"tap drips in 12B": '{"flat": "12B"}', "no light in 3A": '{"flat": "3A"}',
                           "the door squeaks": '{"flat": null}'})  # fmt: skip
    made = verified(flats, Proposal(parts=(Part(name="flat", kind="copied", missing=missing),)))
    assert made.left_out == () and made.spec.attribute("flat").absent_as is None
    assert all(gives_back(made.spec, one) for one in made.spec.examples)


@table(
    ("answers", "why"),
    [
        (['{"a": [[1]]}', '{"a": [[2]]}', '{"a": []}'], "a has a list or null among its items"),
        (['{"a": []}', '{"a": []}', '{"a": [], "b": 1}'], "a is an empty list in every example"),
        (['{"a": null}', '{"b": 1}', '{"a": 2}'], "a is null in one example and lacking in another"),
        (['{"a": 1}', '{"a": [1]}', '{"a": 2}'], "a is a list or an object in one example and a single value"),
        (['{"a": 1}', '{"a": "x"}', '{"a": 2}'], "put together again, the answer of example 1 is another one"),
        (['{"due date": 1}', '{"due date": 2}', '{"due date": 3}'], "'due date' is no name"),
    ],
)
def test_json_that_attributes_cannot_say_is_written_and_named(answers: list[str], why: str) -> None:
    made = verified(words("JSON", {f"m {n} 1 2": answer for n, answer in enumerate(answers)}))
    assert made.spec.answer.form == "written" and why in made.left_out[0] and made.spec.rules


def test_a_file_that_was_changed_by_hand_is_told_what_its_examples_contradict() -> None:
    made = verified(DESK, Proposal(template="{team}/{level}")).spec
    assert spec_faults(made) == ()
    answer = made.answer.model_copy(update={"template": "{team}:{level}"})
    wrong = made.model_copy(update={"answer": answer, "near_misses": ("my mouse broke",)})
    told = " · ".join(spec_faults(wrong))
    assert "example 1 is not of the form" in told and "'my mouse broke' is an example" in told


def test_more_fields_than_are_taken_are_refused() -> None:
    answer = "{" + ", ".join(f'"k{n}": {n}' for n in range(31)) + "}"
    with pytest.raises(BadInput, match="31 fields, at most 30"):
        verified(words("JSON", {"a": answer, "b": answer, "c": answer}))


COUNTED = words(
    "JSON of want and days",
    {f"message {n}": json.dumps({"want": want, "days": days}) for n, (want, days) in enumerate(
        [("lend", 3), ("lend", None), ("lend", 7), ("back", None), ("back", None), ("mend", None)])},
)  # fmt: skip


def test_a_part_is_missing_for_a_label_where_two_examples_say_so_and_of_the_rest_by_share() -> None:
    days = verified(COUNTED, Proposal(labels=part("x", "lend", "back", "mend").values)).spec.attribute("days")
    assert days.absent_where == {"want": ("back",)} and 0 < days.absent_share < 0.5
    apart = words("JSON", {e.prompt: e.answer for e in COUNTED.examples if '"lend", "days": null' not in e.answer})
    days = verified(apart, Proposal(labels=part("x", "lend", "back", "mend").values)).spec.attribute("days")
    assert days.absent_where == {"want": ("back", "mend")} and days.absent_share == 0


@table(
    ("drawn", "read", "differs"),
    [
        ("5", "5", False),
        ("5", "5.0", False),
        ("5", "1", True),
        ("5", None, True),
        ("a red lamp", "the red lamp", False),
    ],
)
def test_a_number_in_words_of_its_own_is_read_right_where_it_is_the_same(
    drawn: str, read: str | None, differs: bool
) -> None:
    spec = COUNTED.model_copy(update={"attributes": (Attribute(name="days", kind="text"),)})
    assert bool(disagreements(spec, {"days": drawn}, "four more days for the lamp", {"days": read})) is differs


def test_of_numbers_only_numbers_are_thought_up_and_never_what_stands_for_none() -> None:
    listed = " 2\n5. null\n6. a week\n7. 14\n8. 3\n9. cut off"
    days = Attribute(name="days", kind="text", absent_as="N/A")
    assert listed_values(days, listed, ["3", "7"]) == ["2", "14"]
    assert listed_values(days, " soon\n2. null\n3. n/a\n4. later\n5. cut", ["today"]) == ["soon", "later"]


@table(
    ("messages", "language"),
    [
        (("Kassel, 120 km", "40 km mit Parkhaus", "Fahrt nach Ulm"), "German"),
        (("120 km to Kassel", "40 km", "Car park of Ulm"), "English"),
    ],
)
def test_a_language_that_too_few_words_of_the_messages_tell_is_that_of_the_users_own(
    messages: Any, language: str
) -> None:
    own = words(
        "der Betrag für die Fahrt mit einem Auto", dict.fromkeys(messages, "y"), when="jemand ist mit dem Auto da"
    )
    assert verified(own).spec.language == language


def test_an_example_that_breaks_a_rule_of_its_users_is_named() -> None:
    rules = [{"says": "in capitals", "type": "regex", "value": "^[A-Z/0-9]+$"}]
    examples = {"m": "TECH/P1", "n": "hr/P3", "o": "TECH/P2"}
    made = verified(words("x", examples, rules=rules))
    assert "the answer of example 2 breaks the rule: in capitals" in " · ".join(made.left_out)
    many = {f"message {n}": "lower" if n == 7 else f"P{n}" for n in range(14)}
    assert "the answer of example 8 breaks" in " · ".join(verified(words("x", many, rules=rules)).left_out)
