"""From thirteen examples on ten are blind cases of people: they count, and nothing else sees them."""

from __future__ import annotations

import random
from pathlib import Path

import yaml

from tests.fixtures.ordinary_behaviours import BEHAVIOURS
from tests.fixtures.tables import table
from tunesmith.memory.records import TrainingRow
from tunesmith.memory.row_attributes import RowAttributes
from tunesmith.tools.data.answer_rules import Check, Rule
from tunesmith.tools.data.answers import answer_messages
from tunesmith.tools.data.behaviour import SPEC_FILE, load_behaviour, spec_of, write_behaviour
from tunesmith.tools.data.critique import CritiqueRequest, suite_of
from tunesmith.tools.data.critique_job import Critic
from tunesmith.tools.data.description import Example, parted
from tunesmith.tools.data.held_out import hold_out
from tunesmith.tools.data.proposal import Proposal
from tunesmith.tools.data.rows import EXAMPLE
from tunesmith.tools.data.spec import Spec
from tunesmith.tools.data.spec_suites import HARD_SUITE, SUITE
from tunesmith.tools.data.verify import verified
from tunesmith.tools.evaluation.prompts import prompt_of
from tunesmith.tools.suites.case import Case, claimed_cases
from tunesmith.tools.suites.loading import load_suites, subsample


def said(count: int) -> Spec:
    labels = ("ok", "remove", "ask")
    shown = [{"prompt": f"post {n} says {'xyzq'[n % 4] * n}", "answer": labels[n % 3]} for n in range(count)]
    document: dict[str, object] = {"name": "mod", "when": "it is a post", "what": "a word", "never": "say more"}
    document["labels"] = list(labels)
    return spec_of({**document, "examples": shown}, "here")


@table(("count", "blind"), [(3, 0), (12, 0), (13, 10), (14, 10), (40, 10), (200, 10)])
def test_ten_of_enough_examples_are_blind_cases_of_people(count: int, blind: int, tmp_path: Path) -> None:
    made = said(count)
    folder = write_behaviour(made, tmp_path)
    cases = load_suites([folder / SUITE], models=("judge",)).cases
    own = [case for case in cases if case.is_blind]
    assert len(own) == blind and len(made.examples) == count - blind and len(cases) == (blind or count)
    assert all(case.of_people and case.metadata["by"] and case.metadata["at"] for case in cases)
    claimed = [case for case in claimed_cases(cases) if case.of_people and case.tests_meaning]
    assert len(claimed) == (blind or count)


def test_nothing_but_the_suite_sees_the_blind_examples(tmp_path: Path) -> None:
    made = said(40)
    folder = write_behaviour(made, tmp_path)
    assert len(made.blind) == 10
    loaded = load_behaviour(str(folder))
    seen = [
        (folder / SPEC_FILE).read_text(),
        str(loaded.model_dump()),
        str(answer_messages(loaded, "x")),
        str(answer_messages(loaded, "x", turn=1)),
        str(prompt_of(loaded)),
        *(path.read_text() for path in (folder / "suites").glob("over*.yaml")),
    ]
    for example in made.blind:
        assert not any(repr(example.prompt)[1:-1] in text for text in seen)
    hard = load_suites([folder / HARD_SUITE], models=("judge",)).cases
    assert hard and all(case.is_blind for case in hard), "what is hard is made of those that nothing is trained on"
    assert loaded.examples == made.examples, "and it is not parted again"
    assert load_behaviour(str(folder)).sha256 == made.sha256


def test_a_changed_blind_answer_makes_another_behaviour() -> None:
    first = said(20)
    shown = [e.model_dump() for e in (*first.examples, *first.blind)]
    shown[-1]["answer"] = "remove" if shown[-1]["answer"] == "ok" else "ok"
    document = {"name": "mod", "when": "it is a post", "what": "one of ok, remove or ask", "never": "say more"}
    assert spec_of({**document, "examples": shown}, "here").sha256 != first.sha256


def test_every_value_of_a_choice_is_among_the_examples_that_are_seen() -> None:
    examples = tuple(Example(prompt=f"m {n}", answer="rare" if n in (4, 9) else "usual") for n in range(13))
    seen, blind = parted(examples)
    assert len(blind) == 10 and {example.answer for example in seen} == {"rare", "usual"}
    assert parted(examples[::-1])[1] == blind[::-1], "by what they say, not by their place"


@table("counts", [(23, 22), (30, 10, 5), (100, 100), (8, 8), (20, 20, 20, 20), (60, 40)])
def test_of_each_answer_the_same_share_is_blind(counts: tuple[int, ...]) -> None:
    """Nine of ten that are the same would be passed by one answer to everything."""
    answers = [str(place) for place, count in enumerate(counts) for _ in range(count)]
    _, blind = parted(tuple(Example(prompt=f"m {n}", answer=answer) for n, answer in enumerate(answers)))
    for place, count in enumerate(counts):
        assert abs(sum(one.answer == str(place) for one in blind) - 10 * count / len(answers)) < 1


def test_a_demand_that_a_blind_answer_breaks_is_left_out_and_named() -> None:
    short = [Example(prompt=f"m {n}", answer=f"word {n}") for n in range(12)]
    answer = " ".join(["many"] * 90)
    longs = (Example(prompt=f"m long {n}", answer=answer) for n in range(20))
    long = next(one for one in longs if one in parted((*short, one))[1])
    words = Spec(name="x", when="w", what="few words", never="n", examples=(*short, long))
    stated = Proposal(
        checks=(Check(kind="at most", count=5, unit="words"), Check(kind="at most", count=1, unit="lines"))
    )
    made = verified(words, stated)
    assert long in made.spec.blind and [rule.says for rule in made.spec.rules] == ["at most 1 line"]
    assert made.left_out == ("at most 5 words: not taken, an example breaks it",), "it does not say which: it is blind"
    assert made.spec.max_tokens > 48


def test_rows_are_held_to_the_suites_of_the_behaviour_at_hand_or_to_none(tmp_path: Path) -> None:
    folder = write_behaviour(said(13), tmp_path)
    lone = tmp_path / "mine.yaml"
    lone.write_text((folder / SPEC_FILE).read_text())
    (tmp_path / "suites").mkdir()
    (tmp_path / "suites" / "another.yaml").write_text((folder / SUITE).read_text())
    counts = [
        len(suite_of(CritiqueRequest(), name).cases) for name in (str(folder), str(folder / SPEC_FILE), str(lone), "")
    ]
    assert counts[0] == counts[1] > 10 and counts[2:] == [0, 0]
    assert {one.suite for one in suite_of(CritiqueRequest(), "demo").cases} >= {"target", "blind"}
    named = suite_of(CritiqueRequest(suites=("general",)), str(folder)).cases
    assert {one.suite for one in named} == {"general"}, "suites that were named come instead"


def case(name: str, suite: str, **metadata: object) -> Case:
    return Case(case_id=name, suite=suite, messages=(), metadata=metadata)


HELD = [case(f"h{n}", "held-out", split="blind", source="written") for n in range(20)]


def test_a_hand_written_suite_without_a_split_counts_beside_held_out_rows() -> None:
    hand = [case(f"p{n}", "mine") for n in range(12)]
    assert claimed_cases([*HELD, *hand]) == [*HELD, *hand]
    marked = [replace_metadata(hand[0], split="blind"), *hand[1:]]
    assert claimed_cases([*HELD, *marked]) == [*HELD, marked[0]], "where a part is marked as blind, the rest is dev"
    assert claimed_cases(hand) == hand


def replace_metadata(one: Case, **metadata: object) -> Case:
    return one.model_copy(update={"metadata": metadata})


def test_peoples_cases_stay_where_a_suite_is_thinned() -> None:
    from tunesmith.tools.suites.case import Suite

    own = [case(f"o{n}", "target", split="blind", source="own") for n in range(10)]
    dev = [case(f"d{n}", "target", split="dev", source="example") for n in range(3)]
    thinned = subsample(Suite(cases=(*dev, *own, *HELD)), 14).cases
    assert len(thinned) == 14 and {c.case_id for c in own} <= {c.case_id for c in thinned}


@table("source", ["written", "proposed", "marked"])
def test_a_models_message_is_no_case_of_people(source: str) -> None:
    assert not case("x", "s", source=source).of_people and case("x", "s", source="gold").of_people


def test_the_readme_example_names_no_word_of_its_messages(tmp_path: Path) -> None:
    folder = write_behaviour(BEHAVIOURS["three-points"].spec("three-points"), tmp_path)
    tests = yaml.safe_load((folder / SUITE).read_text())["tests"]
    kinds = [[one["type"] for one in test["assert"]] for test in tests]
    assert kinds == [["llm-rubric"]] * 3


def test_thirteen_examples_of_a_folder_written_by_hand_are_parted_once(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    document = {"name": "mod", "when": "w", "what": "one of ok or no", "never": "n"}
    shown = [{"prompt": f"message {n}", "answer": "ok" if n % 2 else "no"} for n in range(13)]
    file.write_text(yaml.safe_dump({**document, "examples": shown}))
    made = load_behaviour(str(file))
    assert (len(made.examples), len(made.blind)) == (3, 10)
    again = verified(made).spec
    assert again.blind == made.blind and again.examples == made.examples


def various(count: int) -> Spec:
    """As `said`, of messages that are nothing like one another."""
    rng, labels = random.Random(3), ("ok", "remove", "ask")
    words = ["".join(rng.choices("bcdfghklmnprstvwz aeiou", k=9)) for _ in range(300)]
    shown = [{"prompt": " ".join(rng.sample(words, 6)), "answer": labels[n % 3]} for n in range(count)]
    document = {"name": "mod", "when": "it is a post", "what": "one of ok, remove or ask", "never": "say more"}
    return spec_of({**document, "examples": shown}, "here")


def own_rows(spec: Spec) -> list[TrainingRow]:
    """The examples that are no blind cases, as `generate` makes rows of them."""
    turns = [(spec.turns(e.prompt), [{"role": "assistant", "content": e.answer}]) for e in spec.examples]
    return [TrainingRow(f"e{n:04d}", EXAMPLE, *turn, RowAttributes(text=spec.examples[n].prompt))  # type: ignore[arg-type]
            for n, turn in enumerate(turns)]  # fmt: skip


def test_the_examples_beside_the_blind_ones_are_trained_on_and_no_rule_drops_them(tmp_path: Path) -> None:
    made = various(40)
    folder = write_behaviour(made, tmp_path)
    strict = made.model_copy(update={"rules": (Rule(says="never", type="equals", value="nothing"),)})
    suites = [folder / SUITE, folder / HARD_SUITE]
    critic = Critic(strict, load_suites(suites, models=("judge",)).cases, CritiqueRequest(embeddings=False))
    judged = critic.judge(own_rows(strict))
    assert len(judged) == 30 and all(row.usable for row in judged) and not critic.leaks
    held = hold_out(strict, judged, [], 10, 85)
    assert not held.known and all(row.usable for row in held.rows), "what is trained on tests nothing"


def test_an_example_that_repeats_a_blind_one_is_not_trained_on(tmp_path: Path) -> None:
    made = various(40)
    folder = write_behaviour(made, tmp_path)
    rows = own_rows(made.model_copy(update={"examples": made.blind[:3]}))
    critic = Critic(made, load_suites([folder / SUITE], models=("judge",)).cases, CritiqueRequest(embeddings=False))
    assert [row.verdict.kind for row in critic.judge(rows) if row.verdict] == ["leak"] * 3
