"""What the sentences of a description tell, by descriptions that were written apart (tests/heldout/openings.yaml)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.fixtures import yaml_of
from tests.fixtures.tables import table
from tests.words.openings import descriptions, fingerprint, learned_from
from tunesmith.agent.driver.opening import describes, may_describe
from tunesmith.agent.words.openings import (
    ROLES,
    clauses,
    clauses_in,
    sentences_of,
    statements,
)  # fmt: skip

HELD_OUT = Path(__file__).parents[2] / "heldout"


def held_out() -> list[list[tuple[str, str]]]:
    said = yaml_of((HELD_OUT / "openings.yaml").read_text(encoding="utf-8"))
    return [[(str(role), str(one)) for role, one in each["say"]] for each in said]


def test_the_layer_in_the_package_learned_from_the_descriptions_in_it() -> None:
    assert learned_from() == fingerprint(), "run `python -m tests.words.openings`"
    learned = [one for each in descriptions() for one in each]
    assert {role for role, _ in learned} == set(ROLES)
    assert not {text for _, text in learned} & {text for each in held_out() for _, text in each}


@table(
    ("text", "parts"),
    [
        ("One. Two! Three? Four", ["One.", "Two!", "Three?", "Four"]),
        ("first line\n\n  second line \n", ["first line", "second line"]),
        ("Say e.g. the size, z. B. Größe. Then stop.", ["Say e.g. the size, z. B. Größe.", "Then stop."]),
        ("It is A, B or C. Answer yes or no. Not more.", ["It is A, B or C.", "Answer yes or no.", "Not more."]),
        ("1. the size\n2. from 1 to 5. No more", ["1. the size", "2. from 1 to 5.", "No more"]),
        ("It says “closed.” Nothing more.", ["It says “closed.”", "Nothing more."]),
        ("收到邮件。只回答类别！", ["收到邮件。", "只回答类别！"]),
        ("v1.5 costs 3.50 Euro", ["v1.5 costs 3.50 Euro"]),
        ("  \n ", []),
    ],
)
def test_sentences_are_cut_where_they_end_and_keep_every_letter(text: str, parts: list[str]) -> None:
    assert sentences_of(text) == parts
    assert "".join("".join(parts).split()) == "".join(text.split())


def test_four_of_five_sentences_of_descriptions_written_apart_are_told_right() -> None:
    right = [
        one.role == roles[one.text]
        for each in held_out()
        for roles in [{text: role for role, text in each}]
        for one in statements("\n".join(roles))
        if one.text in roles  # two of 230 hold a mark that ends a sentence
    ]
    assert len(right) > 200 and sum(right) >= 0.8 * len(right), f"{sum(right)} of {len(right)}"


def test_four_of_five_words_of_a_run_on_are_kept_where_they_belong_and_none_is_lost() -> None:
    """Of the same descriptions with a comma where each sentence ended."""
    kept = {"when": {"when"}, "what": {"what"}, "both": {"when", "what"}, "never": {"never"}}
    right: list[bool] = []
    for each in held_out():
        joined = ", ".join(text.rstrip(".!?。 ") for _, text in each)
        wanted = [role for role, text in each for _ in text.rstrip(".!?。 ").split()]
        found = clauses(joined)
        assert " ".join(one.text for one in found).split() == joined.split()
        if len(wanted) == len(joined.split()):  # where no sentence ends in an example's arrow
            told = [one.role for one in found for _ in one.text.split()]
            pairs = [(kept.get(a, set()), kept.get(b, set())) for a, b in zip(told, wanted, strict=True)]
            right += [a == b or bool(a & b) for a, b in pairs]
    assert len(right) > 1500 and sum(right) >= 0.8 * len(right), f"{sum(right)} of {len(right)}"


def test_no_clause_ends_within_a_quotation_or_a_bracket() -> None:
    parts = [
        "when the kids' parents don't write, ",
        "answer with “yes, of course” or „ja, gut“, ",
        "with 'no, sorry' or \"later, perhaps\", ",
        "(only if asked, that is), ",
        "never with a price",
    ]
    assert clauses_in("".join(parts)) == parts


def test_a_clause_of_few_words_may_be_one_of_a_list_and_stays_with_it() -> None:
    said = (
        "i want it tuned so when it gets a raw syslog line it replies with json only, keys severity, service and "
        "summary, summary max 10 words, no markdown fences and no chatter before or after"
    )
    told = [(one.role, one.text) for one in clauses(said)]
    assert ("what", "keys severity, service and summary, summary max 10 words,") in told


def test_descriptions_are_known_with_marks_and_without_from_messages_that_ask_for_something_else() -> None:
    for known in (
        [describes(" ".join(text for _, text in each)) for each in held_out()],
        [any_of_both(" ".join(text.rstrip(".!?").lower() for _, text in each)) for each in held_out()],
    ):
        assert sum(known) >= 0.8 * len(known), f"{sum(known)} of {len(known)}"
    assert not [text for text in _asked_for() if any_of_both(text)]


def any_of_both(words: str) -> bool:
    return describes(words) or may_describe(words)


def _asked_for() -> list[str]:
    """What strangers typed who wanted an answer or a step, with no description open and none wanted."""
    items: list[dict[str, Any]] = [
        item
        for file in sorted(HELD_OUT.glob("sentences-*.yaml"))
        for item in yaml_of(file.read_text(encoding="utf-8"))
        if "empty home" not in str(item.get("state"))
    ]
    return [str(item["say"]) for item in items]
