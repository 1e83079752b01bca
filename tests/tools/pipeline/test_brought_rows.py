"""Rows that a person brings: read once, what is wrong with them said in a sentence, and a plan without written rows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tests.fixtures.ordinary_behaviours import BEHAVIOURS
from tests.fixtures.own_rows import written
from tests.fixtures.tables import table
from tunesmith.memory.errors import BadInput
from tunesmith.tools.core.stage import PlanQuestion
from tunesmith.tools.data.behaviour import spec_of, write_behaviour
from tunesmith.tools.data.spec import Spec
from tunesmith.tools.pipeline.behaviour_plan import plan_for, rehearsal_rows
from tunesmith.tools.pipeline.brought_rows import Brought, Settled, Wanted, bring, settle, spec_of_rows
from tunesmith.tools.suites.case import Case
from tunesmith.tools.suites.loading import load_suites
from tunesmith.tools.training.defaults import rehearsal_wanted

WORDS = ("roof", "cello", "pipe", "parcel", "stairs", "bread", "bike", "neighbour", "bill", "window", "trip", "paint")
PAIRS = [(f"what about the {word} in {at}?", f"The {word} is in {at}.") for word in WORDS for at in ("Oslo", "Rome")]


def wanted(*files: Path | str, **more: object) -> Wanted:
    return replace(Wanted(tuple(map(str, files)), {}, 100_000, 0.05), **more)  # type: ignore[arg-type]


def nobody(question: PlanQuestion) -> None:
    return


def brought(path: Path, **more: object) -> Brought:
    return bring(wanted(path, **more), nobody)


def settled(path: Path, spec: Spec | None = None, cases: Sequence[Case] = (), **more: object) -> Settled:
    known = brought(path, **more)
    return settle(known, spec or spec_of_rows(known, "mine"), cases)


@table(
    ("pairs", "said"),
    [
        (PAIRS[:2], "2 rows are too few to train on; bring 10 or more"),
        ([PAIRS[0]] * 30, "all 30 rows say the same, one message with one answer"),
        ([*PAIRS[:4], *[PAIRS[4]] * 8], r"5 rows \(7 more say what another one says\) are too few"),
        ([(a, b) for a, _ in PAIRS[:8] for b in ("yes", "no")], "0 rows are left without those that contradict"),
        ([(a, b if n else "") for n, (a, b) in enumerate(PAIRS)], "record 1: completion is empty"),
    ],
)
def test_what_no_training_comes_of_is_refused_with_its_number_and_what_to_do(
    pairs: list[tuple[str, str]], said: str, tmp_path: Path
) -> None:
    path = written(tmp_path / "mine.jsonl", pairs)
    with pytest.raises(BadInput, match=said):
        brought(path, max_unusable_share=0.0)


def test_columns_of_unclear_meaning_are_asked_about_and_never_guessed(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("alpha,beta\n" + "".join(f"{a},{b}\n" for a, b in PAIRS))
    for ask in (nobody, lambda question: True):
        with pytest.raises(BadInput, match=r"mine.csv: cannot tell which of the columns alpha, beta is the message"):
            bring(wanted(path), ask)
    assert brought(path, mapping={"user": "beta", "assistant": "alpha"}).survey
    path.write_text(path.read_text().replace("alpha,beta", "question,beta"))
    with pytest.raises(BadInput, match=r"mine.csv: Which columns\? Run again with --map user=question assistant=beta$"):
        brought(path)
    agreed = bring(wanted(path), lambda question: True)
    assert agreed.imports[0]["mapping"] == {"user": "question", "assistant": "beta"}


@table(("header", "left"), [("question,answer,id", "id"), ("Text, LABEL ,date", "date"), ("question,answer", "")])
def test_a_message_and_its_answer_need_no_mapping_and_what_is_left_out_is_said(
    header: str, left: str, tmp_path: Path
) -> None:
    path = tmp_path / "mine.csv"
    path.write_text(f"{header}\n" + "".join(f"{a},{b}{',x' if left else ''}\n" for a, b in PAIRS))
    known = brought(path)
    assert known.survey and known.survey.different == len(PAIRS) and known.imports[0]["mapping"] == {}
    assert known.survey.examples[0].prompt == PAIRS[0][0] and known.survey.examples[0].answer == PAIRS[0][1]
    assert [note for note in known.notes if "taken" in note] == [
        f"{path}: columns taken: {', '.join(name.strip() for name in header.split(',')[:2])}; not taken: {left}"
    ] * bool(left)


@pytest.mark.heavy
def test_a_mapping_is_for_the_sources_that_have_its_columns_and_for_one_at_least(tmp_path: Path) -> None:
    known = written(tmp_path / "known.jsonl", PAIRS[:12])
    own = tmp_path / "own.csv"
    own.write_text("alpha,beta\n" + "".join(f"{a},{b}\n" for a, b in PAIRS[12:]))
    both = bring(wanted(known, own, mapping={"user": "alpha", "assistant": "beta"}), nobody)
    assert [step["mapping"] for step in both.imports] == [{}, {"user": "alpha", "assistant": "beta"}]
    assert both.survey and both.survey.rows == len(PAIRS)
    for files in ((known,), (known, known)):
        with pytest.raises(BadInput, match=r"^known.jsonl has no column 'nosuch'; its columns: prompt, completion$"):
            bring(wanted(*files, mapping={"user": "nosuch", "assistant": "completion"}), nobody)


def test_contradictions_are_asked_about_and_what_was_said_is_in_the_plan(tmp_path: Path) -> None:
    path = written(tmp_path / "mine.jsonl", [*PAIRS, (PAIRS[0][0], "Nowhere.")])
    asked: list[str] = []
    known = bring(wanted(path), lambda question: asked.append(question.text) or True)  # type: ignore[func-returns-value]
    assert "2 of 25 rows answer a message that another row answers otherwise" in asked[0]
    assert "mine.jsonl:1 and mine.jsonl:25" in asked[0]
    assert (known.contradictory, known.usable) == ("drop", 23) and "they are left out" in str(known.notes)
    with pytest.raises(BadInput, match="--contradictory keep"):
        bring(wanted(path), lambda question: False)
    unsaid = brought(path)
    assert unsaid.contradictory == "refuse" and any("you will be asked" in note for note in unsaid.notes)
    assert brought(path, contradictory="keep").usable == 25


def test_several_files_are_one_behaviour_and_a_row_that_comes_again_counts_once(tmp_path: Path) -> None:
    one, other = written(tmp_path / "a.jsonl", PAIRS[:14]), tmp_path / "b.json"
    other.write_text(json.dumps([{"instruction": a, "output": b} for a, b in PAIRS[12:]]))
    known = bring(wanted(one, other), nobody)
    assert len(known.imports) == 2 and known.survey and known.survey.different == 24
    assert any("2 rows say what another one says" in note for note in known.notes)


def test_rows_are_told_apart_by_file_whatever_files_are_called(tmp_path: Path) -> None:
    for folder, pairs in (("x", PAIRS[:12]), ("y", [*PAIRS[12:], (PAIRS[0][0], "Nowhere.")])):
        (tmp_path / folder).mkdir()
        written(tmp_path / folder / "mine.jsonl", pairs)
    named = ("x/mine.jsonl", "y/mine.jsonl")
    known = bring(wanted(*(tmp_path / name for name in named)), nobody)
    assert known.survey and (known.survey.different, known.survey.contradicted) == (
        25,
        ("x/mine.jsonl:1", "y/mine.jsonl:13"),
    )
    assert brought(tmp_path).survey == known.survey
    twice = bring(wanted(*(tmp_path / named[0],) * 2), nobody)
    assert twice.survey and (twice.survey.different, twice.survey.same) == (12, 12)


def test_what_is_left_out_is_said_and_not_counted_as_trained_on(tmp_path: Path) -> None:
    key = "my password: hunter22secret7 and more"
    pairs = [(f"{key} {PAIRS[0][0]}", "Noted."), *PAIRS[:13], (PAIRS[13][0], "hello there")]
    path = tmp_path / "mine.jsonl"
    lines = [{"prompt": a, "completion": b} for a, b in pairs]
    odd = [{"role": role, "content": "hm"} for role in ("user", "user", "assistant")]
    path.write_text("\n".join(json.dumps(line) for line in [*lines, {"messages": odd}]))
    found = settled(path)
    assert found.own.rows == 14 and not any(key in example.prompt for example in found.spec.examples)
    told = [note for note in found.notes if "left out" in note]
    assert [note.partition(": ")[0] for note in told] == [
        "1 of 16 rows are left out, such as mine.jsonl:1", "1 of 16 rows are left out, such as mine.jsonl:16",
    ]  # fmt: skip
    rule = {"says": "it ends with a full stop", "type": "regex", "value": r"\.$"}
    said = spec_of({"examples": [{"prompt": a, "answer": b} for a, b in PAIRS[20:]], "rules": [rule]}, "s")
    ruled = settled(path, said)
    assert ruled.own.rows == 13 and any("not kept: it ends with a full stop" in note for note in ruled.notes)
    few = written(tmp_path / "few.jsonl", [*pairs[:9], *((f"{key} {a}", b) for a, b in PAIRS[20:23])])
    with pytest.raises(
        BadInput, match=r"8 rows are left to train on; 4 of 12 rows are left out, such as few\.jsonl:1: "
    ):
        settled(few)


CALLS = [{"name": "find", "arguments": {"word": word}} for word in WORDS]
TOOLS = [{"type": "function", "function": {"name": "find", "parameters": {
    "type": "object", "properties": {"word": {"type": "string"}}, "required": ["word"]}}}]  # fmt: skip


def talks(answers: Sequence[object], after: Sequence[dict[str, str]] = ()) -> str:
    """A conversation a line, each with tools: a call, or an answer in words; and what follows."""
    made: list[dict[str, object]] = []
    for (asked, _), given in zip(PAIRS, answers, strict=False):
        called = {"content": None, "tool_calls": [{"type": "function", "function": given}]}
        answer = {"role": "assistant", **({"content": given} if isinstance(given, str) else called)}
        made.append({"tools": TOOLS, "messages": [{"role": "user", "content": asked}, answer, *after]})
    return "\n".join(map(json.dumps, made))


def test_rows_that_call_tools_show_a_behaviour_that_calls_them(tmp_path: Path) -> None:
    path = tmp_path / "calls.jsonl"
    path.write_text(talks([*CALLS, *CALLS]))
    found = settled(path)
    assert (found.spec.answer.form, found.spec.answer.template, found.own.blind) == ("call", "find", 10)
    path.write_text(talks(["In Rome.", *CALLS[:2], "It is gone.", *CALLS, "No idea."] * 2))
    mixed = settled(path)
    assert mixed.spec.answer.form == "written" and mixed.spec.tools and mixed.own.rows == 24


def test_rows_under_several_system_prompts_are_taken_and_what_shows_nothing_is_told_with_its_file(
    tmp_path: Path,
) -> None:
    def talk(at: int, system: str, *more: dict[str, str]) -> str:
        asked, answered = (
            {"role": role, "content": text} for role, text in zip(("user", "assistant"), PAIRS[at], strict=True)
        )
        return json.dumps({"messages": [{"role": "system", "content": system}, *more, asked, answered]})

    path = tmp_path / "my talks.jsonl"
    path.write_text("\n".join(talk(at, f"You are agent {at % 3}.") for at in range(24)))
    found = settled(path)
    assert found.own.rows == 24 and not found.spec.system_prompts
    path.write_text("\n".join(talk(at, "Be kind.", {"role": "user", "content": "hi"}) for at in range(24)))
    with pytest.raises(BadInput, match=rf"0 rows show the behaviour.*teach FILE --rows '{path}'$"):
        settled(path)


@pytest.mark.heavy
def test_answers_behind_the_first_one_are_no_labels_of_it(tmp_path: Path) -> None:
    path = tmp_path / "rounds.jsonl"
    path.write_text(talks(CALLS * 2, [{"role": "tool", "content": "ok"}, {"role": "assistant", "content": "Done."}]))
    assert settled(path).own.rows == 24
    path.write_text(talks([f"{word}?" for word in WORDS] * 2, [
        {"role": "user", "content": "so?"}, {"role": "assistant", "content": "yes"},
    ]))  # fmt: skip
    assert not settled(path).spec.labels


def test_more_records_than_a_limit_are_said_to_be_left_out(tmp_path: Path) -> None:
    path = written(tmp_path / "mine.jsonl", PAIRS)
    assert any("more than 20 records" in note for note in brought(path, limit=20).notes)
    assert not brought(path, limit=24).notes


def test_a_data_set_that_nobody_has_read_needs_words_beside_it(tmp_path: Path) -> None:
    known = bring(wanted("hub:somebody/rows"), nobody)
    with pytest.raises(BadInput, match="describe it in a file with 3 examples: teach FILE --rows hub:somebody/rows"):
        spec_of_rows(known, "hub:somebody/rows")
    assert settle(known, BEHAVIOURS["polite"].spec("p"), ()).own.blind == 10


@pytest.mark.heavy
def test_a_choice_of_answers_is_a_label_and_a_form_that_a_row_refutes_is_none(tmp_path: Path) -> None:
    labels = written(tmp_path / "l.jsonl", [(a, ("ok", "late", "broken")[n % 3]) for n, (a, _) in enumerate(PAIRS)])
    [label, *_] = settled(labels).spec.labels
    assert set(label.values) == {"ok", "late", "broken"}
    said = BEHAVIOURS["summary-json"].spec("s")
    pairs = [(a, json.dumps({"mood": "good", "summary": b})) for a, b in PAIRS]
    assert settled(written(tmp_path / "j.jsonl", pairs), said).spec.answer.form == "json"
    odd = settled(written(tmp_path / "k.jsonl", [*pairs[:-1], (pairs[-1][0], "No idea.")]), said)
    assert odd.spec.answer.form == "written" and "no form, as 1 of 24 answers do not have it: json" in odd.notes


def test_what_the_examples_seemed_to_say_is_no_rule_where_rows_say_otherwise(tmp_path: Path) -> None:
    spec = BEHAVIOURS["pirate"].spec("pirate")
    longer = [(a, " ".join(["Arr!", *[b] * 12])) for a, b in PAIRS[:3]]
    found = settled(written(tmp_path / "mine.jsonl", [*longer, *PAIRS[3:]]), spec)
    assert "no rule, as 3 of 24 rows do not keep it: at most 40 words" in found.notes
    assert any(rule.type == "word-count" for rule in spec.rules)
    assert not any(rule.type == "word-count" for rule in found.spec.rules)
    assert found.spec.max_tokens > spec.max_tokens, "the longest answer has room"


def test_rows_that_are_test_cases_are_counted(tmp_path: Path) -> None:
    spec = BEHAVIOURS["polite"].spec("polite")
    folder = write_behaviour(spec, tmp_path / "behaviours", judged=False)
    cases = load_suites([folder / "suites/target.yaml"]).cases
    path = written(tmp_path / "mine.jsonl", [*PAIRS, *((e.prompt, e.answer) for e in spec.examples)])
    found = settled(path, spec, cases)
    assert "3 of 27 rows repeat a test case: they test, and are not trained on" in found.notes
    assert set(found.trained_examples) == {example.prompt for example in spec.examples}


@pytest.mark.parametrize(("blind", "said"), [(22, "leaves 2 of 24"), (40, "take half of them at most")])
def test_no_more_becomes_blind_than_leaves_something_to_train_on(blind: int, said: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=said):
        settled(written(tmp_path / "mine.jsonl", PAIRS), blind=blind)


def test_few_blind_cases_are_said_to_decide_nothing(tmp_path: Path) -> None:
    found = settled(written(tmp_path / "mine.jsonl", PAIRS[:12]))
    assert found.own.blind == 6 and any("6 blind cases decide nothing" in note for note in found.notes)


@pytest.mark.parametrize("pace", ["fast", "full"])
def test_a_plan_of_own_rows_writes_none_and_holds_the_model_to_its_base_all_the_same(pace: str, tmp_path: Path) -> None:
    found = settled(written(tmp_path / "mine.jsonl", PAIRS))
    folder = write_behaviour(found.spec, tmp_path / "behaviours", trained=found.trained_examples)
    plan = plan_for(folder, pace, model="bundled", teacher="", own=found.own)  # type: ignore[arg-type]
    steps = {spec.stage: spec.fields for spec in plan.steps if spec.stage in ("import", "generate", "critique", "base")}
    assert [spec.stage for spec in plan.steps][:5] == ["inspect", "base", "import", "generate", "critique"]
    generate, critique = steps["generate"], steps["critique"]
    assert (generate["rows"], generate["near_miss_rows"]) == (0, 0)
    assert generate["rehearsal_rows"] == rehearsal_rows(found.own.rows - found.own.blind) == 50
    assert (critique["held_out"], critique["judge"], critique["on_leak"]) == (10, "none", "drop")
    assert steps["import"]["behaviour"] == str(folder) and "teacher" not in str(plan.steps)


def test_every_step_of_a_training_has_an_ordinary_prompt_and_few_rows_have_fifty() -> None:
    assert [rehearsal_rows(rows) for rows in (10, 140, 600)] == [50, rehearsal_wanted(140), rehearsal_wanted(600)]
