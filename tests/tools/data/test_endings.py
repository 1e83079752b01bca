"""Whether a message ends with a value that may be missing tells nothing of its label, and only whole endings move."""

from __future__ import annotations

from collections import Counter

from tests.fixtures.tables import table
from tunesmith.tools.data.augmentation import Ending, Endings, ending_of, with_ending
from tunesmith.tools.data.spec import Spec

SPEC = Spec.model_validate(
    {
        "name": "club", "when": "a member writes", "what": "[label] name, - for none",
        "examples": [
            {"prompt": "count me in. Lou", "answer": "[IN] Lou"},
            {"prompt": "not today", "answer": "[OUT] -"},
            {"prompt": "see you, Ann", "answer": "[IN] Ann"},
        ],
        "attributes": [
            {"name": "label", "values": {"IN": {"means": "they come"}, "OUT": {"means": "they do not"}}},
            {"name": "name", "kind": "copied", "means": "who signs", "absent_share": 0.3, "absent_as": "-"},
        ],
        "answer": {"form": "text", "template": "[{label}] {name}"},
    }
)  # fmt: skip


@table(
    ("message", "value", "ending"),
    [
        ("I'll be there on Sunday. Emily", "Emily", " Emily"),
        ("see you, Tom White", "Tom White", ", Tom White"),
        ("I can't come.\nBest\nLou!", "Lou", "\nLou!"),
        ("könnt ihr mich anrufen? jörg", "jörg", " jörg"),
        ("我不能来。李", "李", "李"),
        ("Please call Emily", "Emily", None),  # a part of the sentence
        ("Emily asked. Emily", "Emily", None),  # said twice
        ("I'll be there, Nina, to help", "Nina", None),
        ("See you. Annabel", "bel", None),
        ("Lou", "Lou", None),
        (", Lou", "Lou", None),
    ],
)
def test_an_ending_is_a_value_alone_behind_a_sentence(message: str, value: str, ending: str | None) -> None:
    assert ending_of(message, value) == (ending and Ending(ending, value))


@table(
    ("message", "ending", "whole"),
    [
        ("I can't come", Ending(" Emily", "Emily"), "I can't come. Emily"),
        ("I can't come.", Ending(", Emily", "Emily"), "I can't come, Emily"),
        ("cant come 2nite", Ending("\nEmily", "Emily"), "cant come 2nite.\nemily"),
        ("Emily is ill?", Ending(" Emily", "Emily"), None),
        ("", Ending(" Emily", "Emily"), None),
    ],
)
def test_an_ending_is_put_behind_a_message_in_its_own_letters(message: str, ending: Ending, whole: str | None) -> None:
    changed = with_ending(message, ending)
    assert (changed and changed[0]) == whole and (changed is None or changed[1] in changed[0])


def test_a_value_that_only_one_label_has_is_evened_out() -> None:
    endings, counts = Endings(SPEC, 7), Counter[tuple[str, bool]]()
    endings.see("count me in. Lou", {"name": "Lou"})
    for number in range(60):
        signed = number % 2 == 0  # as a small writer wrote them: all of one label, none of the other
        label, name = ("IN", f"Ann{number}") if signed else ("OUT", None)
        message = f"message {number}, whatever it says.{f' {name}' if name else ''}"
        changed = endings.evened(f"w{number}", label, message, {"label": label, "name": name})
        text, says = (changed.message, changed.value) if changed else (message, name)
        assert (says in text) if says else text.endswith("whatever it says.")
        counts[label, says is not None] += 1
    for label in ("IN", "OUT"):
        assert abs(counts[label, False] - 0.3 * 30) <= 2, counts


def test_a_label_that_excludes_the_value_and_a_value_that_is_always_there_are_left() -> None:
    always = SPEC.model_copy(update={"attributes": (SPEC.attributes[0], SPEC.attributes[1].model_copy(
        update={"absent_share": 0.0, "absent_as": None}))})  # fmt: skip
    endings = Endings(always, 7)
    assert all(endings.evened(f"w{n}", "IN", f"I come {n}. Lou", {"name": "Lou"}) is None for n in range(9))
