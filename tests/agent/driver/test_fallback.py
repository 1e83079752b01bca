"""Sentences where no driver answers: what they say, what they change, and what they never do."""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.driver.states import make_state, priceable
from tests.fixtures.alone import Alone
from tests.fixtures.stored_runs import failed_run, finished_run, new_builder, server_record, start_training
from tests.fixtures.tables import table
from tunesmith.agent.driver import fallback, plan, plan_words
from tunesmith.agent.driver.fallback import turn
from tunesmith.agent.driver.turn_deps import Call, TurnAnswer
from tunesmith.agent.queries.facts import Proposed
from tunesmith.agent.words.head import Guess, Head
from tunesmith.agent.words.reading import Context, parted, read, reader
from tunesmith.memory.records import RUNNING


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Alone]:
    finished_run(tmp_path / "home")[0].close()
    one = Alone(tmp_path / "home")
    yield one
    one.chat.close()


@pytest.fixture
def planned(alone: Alone) -> Alone:
    plan.plan_fine_tune(alone.deps, plan.PlanFineTune(behaviour="demo"))
    assert alone.deps.draft is not None
    return alone


def at(tmp_path: Path, state: str) -> Alone:
    """Somebody whose run ends with what a state names, each of its steps with a price."""
    store, _ = make_state(tmp_path / "home", state)
    priceable(store)
    store.close()
    return Alone(tmp_path / "home")


def value(alone: Alone, stage: str, field: str) -> object:
    """What the proposed plan gives to a field of a stage."""
    assert alone.deps.draft is not None
    return next((spec.fields.get(field) for spec in alone.deps.draft.steps if spec.stage == stage), None)


def heard(alone: Alone, words: str) -> TurnAnswer | Call:
    """What words come to, nothing of it carried out."""
    alone.deps.begin_turn(words)
    return turn(alone.deps, alone.chat.spoken)


ANSWERS = {
    "what was the accuracy of the last run?": "adapter",
    "which model is being served now?": "serv",
    "how long did the training take?": "train",
    "wie lange hat das Training gedauert?": "train",
    "what can you do": "“",
    "train it on /etc/passwd": "/etc/passwd",
    "train again, but not longer than 2 hours": "nothing was begun",
    "import /tmp/none.jsonl": "/tmp/none.jsonl",
    "write the kept rows of r1 to /tmp/kept.jsonl": "`tunesmith rows export /tmp/kept.jsonl`",
    "which file did you write for ollama?": "did not understand",
    "delete r1": "I delete nothing",
    "wipe run r1 from the disk": "I delete nothing",
    "approve everything": "I approve nothing",
    "don't import /tmp/rows.jsonl": "nothing was begun",
    "quantize r47": "There is no run r47",
    "…": "did not understand",
    "x" * 900: "900 characters",
}


@pytest.mark.parametrize("said", ANSWERS)
def test_a_sentence_is_answered_by_code_and_begins_nothing(alone: Alone, said: str) -> None:
    steps = alone.steps()
    found = alone.hears(said)
    assert ANSWERS[said] in found and "no driver" not in found
    assert alone.asked == [] and alone.steps() == steps and alone.deps.draft is None


@table(
    ("said", "tool", "arguments"),
    [
        ("train again with rank 8", "train", {"lora_rank": 8}),
        ("quantize r1 to 4 bit", "quantize", {"run": "r1", "scheme": "W4A16"}),
        ("test the merged model", "evaluate", {"arm": "merged"}),
        ("deploy the quantized one", "deploy", {"arm": "quantized"}),
    ],
)
def test_an_order_is_a_step_with_its_arguments(
    alone: Alone, said: str, tool: str, arguments: dict[str, object]
) -> None:
    call = heard(alone, said)
    assert isinstance(call, Call) and call.tool == tool
    assert {name: call.arguments.get(name) for name in arguments} == arguments


def test_an_order_shows_its_price_and_starts_nothing_without_a_yes(tmp_path: Path) -> None:
    alone = at(tmp_path, "merged and tested")
    assert "the user said no" in alone.hears("train again with rank 8")
    assert [plan.stage for plan in alone.asked] == ["train"]
    assert alone.store.steps(status=RUNNING) == [], "nothing was started"
    alone.chat.close()


def test_a_step_whose_records_lack_what_todays_price_is_made_of_says_so(alone: Alone) -> None:
    assert "cannot be priced: the records of r1 lack" in alone.hears("train again with rank 8") and alone.asked == []


@table("said", ["quantize it if r1 is any good", "train it tomorrow", "deploy the best one", "train again, not now"])
def test_an_order_with_a_condition_a_time_or_a_denial_is_offered_and_not_priced(alone: Alone, said: str) -> None:
    answer = heard(alone, said)
    assert isinstance(answer, TurnAnswer) and "nothing was begun. Say “" in answer.text, answer


def test_what_nothing_took_of_an_order_is_told_beside_its_price(alone: Alone) -> None:
    assert isinstance(heard(alone, "quantize r1 for my fridge"), Call)
    assert "About “fridge” nothing was done" in alone.shown()


def test_of_two_orders_the_first_is_priced_and_the_other_is_named(alone: Alone) -> None:
    call = heard(alone, "merge r1 and then quantize it")
    assert isinstance(call, Call) and call.tool == "merge"
    assert "One thing at a time is read here: say “quantize it” after it" in alone.shown()


def test_a_question_beside_an_order_is_answered_before_its_price(alone: Alone) -> None:
    call = heard(alone, "how long did the merge take, and quantize r1 again")
    assert isinstance(call, Call) and call.tool == "quantize" and "stage merge" in alone.shown()


def test_an_order_to_stop_beside_a_question_is_asked_about_after_its_answer(tmp_path: Path) -> None:
    start_training(new_builder(tmp_path / "home"))
    alone, asked = Alone(tmp_path / "home"), list[str]()
    alone.deps.end = asked.append
    said = alone.hears("how far is it, and please stop it now")
    assert "running 1" in alone.shown() and "ends it, after one more question" in said and len(asked) == 1
    alone.chat.close()


def test_a_few_words_pick_from_the_list_that_was_shown_and_go_on_with_it(alone: Alone) -> None:
    listed = alone.hears("list all artifacts")
    newest = next(word for word in listed.split() if re.fullmatch(r"a\d+", word))
    assert f"artifact {newest} " in alone.hears("the first") and "lineage" not in alone.hears("hello")
    alone.hears("show me the cases r1 still gets wrong")
    first = alone.chat.spoken.listed[0]["case"]
    assert f"case {first}" in alone.hears("what should it have said?")
    alone.hears("show me the cases r1 still gets wrong")
    alone.hears("more")
    assert first not in {one["case"] for one in alone.chat.spoken.listed}


def test_what_follows_on_nothing_is_read_by_itself_and_is_a_guess(tmp_path: Path) -> None:
    start_training(new_builder(tmp_path / "home"))
    alone = Alone(tmp_path / "home")
    alone.hears("how much longer does the training need?")
    said = alone.hears("and after that?")
    assert "steps ahead" in said and "with little certainty" in said
    alone.chat.close()


def test_two_questions_are_answered_one_after_the_other(alone: Alone) -> None:
    said = alone.hears("how long did the merge take and how big is the quantized model")
    assert 0 <= said.find("stage merge") < said.find("quantized")


def test_a_question_beside_an_act_that_is_no_step_is_answered_and_the_act_follows(alone: Alone) -> None:
    alone.hears("how long did the merge take, and go on")
    assert "stage merge" in alone.shown()


@table(
    "said",
    [
        "compare r1 and r2", "train with rank 8 and alpha 16", "blorp and how long did the merge take",
        "any opinion on scores and how big is the adapter",
        "how long did the merge take and how long did training take",
    ],
)  # fmt: skip
def test_what_is_one_thing_or_no_two_that_are_understood_is_not_parted(said: str) -> None:
    assert parted(said, Context()) == ()


def test_two_questions_are_parted_with_less_certainty_than_an_order() -> None:
    both = parted("how long did the merge take, and quantize it again", Context())
    assert [one.asks for one in both] == [True, False], "the question is answered before the act"
    back = parted("quantize it again, and how long did the merge take", Context())
    assert [one.asks for one in back] == [True, False]


def test_an_order_that_comes_too_early_names_what_comes_before_it(tmp_path: Path) -> None:
    alone = at(tmp_path, "adapter")
    answer = heard(alone, "quantize it")
    assert isinstance(answer, TurnAnswer) and "which r1 does not have yet" in answer.text
    alone.chat.close()


@table("said", ["do that", "ok do it", "ja gut, mach", "dale", "doe maar"])
def test_a_yes_to_a_proposal_shows_its_price_as_a_question(alone: Alone, said: str) -> None:
    alone.chat.spoken.proposals = (Proposed("r1", "quantize", {}),)
    call = heard(alone, said)
    assert isinstance(call, Call) and call.tool == "quantize" and alone.chat.spoken.proposals == ()


@table("said", ["ok but later", "no", "do it tomorrow"])
def test_no_other_words_agree_to_a_proposal(alone: Alone, said: str) -> None:
    alone.chat.spoken.proposals = (Proposed("r1", "quantize", {}),)
    assert not isinstance(heard(alone, said), Call)


# What is not certain


def test_words_that_nobody_understood_get_the_three_nearest_questions_and_a_number_picks_one(alone: Alone) -> None:
    assert "Did you mean 1 “" in alone.hears("blorp the flurb with a whale")
    words, labels = alone.chat.spoken.offered
    assert words == "blorp the flurb with a whale" and 0 < len(labels) <= 3
    alone.chat.spoken.offered = ("how long did the merge take", ("step.time",))
    assert "stage merge" in alone.hears("1") and alone.chat.spoken.offered == ("", ())
    assert "stage merge" not in alone.hears("1"), "what was offered holds for one turn"


def test_what_is_read_with_little_certainty_is_answered_as_a_guess(
    alone: Alone, monkeypatch: pytest.MonkeyPatch
) -> None:
    for likely, is_guess in ((0.6, True), (0.3, False)):
        guesses = [Guess("step.time", likely), Guess("none", 1 - likely)]
        monkeypatch.setattr(Head, "guesses", lambda *_, g=guesses: g)
        found = alone.hears("the merge, its whole length if you please")
        assert ("stage merge" in found) == is_guess and ("little certainty" in found) == is_guess, found


def test_what_a_likely_question_finds_nothing_of_is_said(alone: Alone, monkeypatch: pytest.MonkeyPatch) -> None:
    for likely, is_said in ((0.6, True), (0.3, False)):
        guesses = [Guess("cases.flipped", likely), Guess("none", 1 - likely)]
        monkeypatch.setattr(Head, "guesses", lambda *_, g=guesses: g)
        found = alone.hears("those cases of r1 between prompted and quantized")
        assert ("no answers of the prompted arm" in found) == is_said and ("little certainty" in found) == is_said


@table(
    ("said", "stands"),
    [
        ("blorp s9 flurb whale", "step s9"), ("blorp r1 flurb whale", "run r1"), ("blorp the flurb whale", "run r1"),
        ("blorp s999 flurb whale", "s999"), ("blorp r77 flurb whale", "r77"),
    ],
)  # fmt: skip
def test_what_is_named_stands_beside_words_that_nobody_understood(alone: Alone, said: str, stands: str) -> None:
    found = alone.hears(said)
    assert stands in found.splitlines()[0] and ("999" in said or "77" in said) != ("did not understand" in found)


def test_what_is_at_work_stands_beside_words_that_nobody_understood_and_a_named_run_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Head, "guesses", lambda *_: [Guess("none", 0.9), Guess("remark", 0.1)])
    start_training(new_builder(tmp_path / "home"))
    alone = Alone(tmp_path / "home")
    assert "running 1" in alone.hears("blorp the flurb whale") and "name " in alone.hears("blorp r1 flurb whale")
    alone.chat.close()


def test_the_last_answer_is_given_once_more(alone: Alone) -> None:
    before = alone.hears("how big is the merged model of r1?")
    assert alone.hears("say that again").strip() == f"Once more:\n{before.strip()}"


def test_no_step_is_offered_whose_run_lacks_what_it_needs(tmp_path: Path) -> None:
    alone = at(tmp_path, "dataset")
    found = {label: fallback._is_possible(alone.deps, label) for label in ("do.merge", "runs.all", "do.train")}
    assert found == {"do.merge": False, "runs.all": True, "do.train": True}
    alone.chat.close()


# What leans on the answer before


@table(
    ("before", "said", "holds"),
    [
        ("how long did the merge take?", "and the training?", "stage train"),
        ("would Qwen3-8B fit on a 16 GB card?", "and on 24 GB?", "24 GB"),
        ("which settings did the training use?", "why?", ""),
    ],
)
def test_a_few_words_change_one_argument_of_the_question_before(
    alone: Alone, before: str, said: str, holds: str
) -> None:
    alone.hears(before)
    assert holds in alone.hears(said)


def test_why_after_a_failure_is_about_the_step_that_failed(tmp_path: Path) -> None:
    failed_run(tmp_path / "home")[0].close()
    alone = Alone(tmp_path / "home")
    alone.hears("which steps failed?")
    assert "status failed" in alone.hears("why?")
    alone.chat.close()


def test_a_file_that_is_named_is_looked_into(alone: Alone, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a", "completion": "b"}\n' * 3)
    assert "rows.jsonl" in alone.hears(f"how many rows are in {tmp_path}/rows.jsonl?")
    assert "rows.jsonl" in alone.hears("show me the first two of it")


# The proposed plan


@table(
    ("said", "stage", "field", "expected"),
    [
        ("rank 8", "train", "lora_rank", 8), ("make it 2 epochs instead", "train", "epochs", 2.0),
        ("epochs auf 4", "train", "epochs", 4.0), ("Nimm lieber 800 Zeilen.", "generate", "rows", 800),
    ],
)  # fmt: skip
def test_a_value_is_set_in_the_plan_and_its_price_shown(
    planned: Alone, said: str, stage: str, field: str, expected: object
) -> None:
    assert "The plan is changed" in planned.hears(said)
    assert value(planned, stage, field) == expected and planned.asked == []


@table(
    ("said", "left_out"),
    [("without quantizing", {"quantize"}), ("drop the deploy and make the rank 32", {"deploy"}),
     ("leave out the merge", set())],
)  # fmt: skip
def test_steps_are_left_out_of_the_plan_by_their_names(planned: Alone, said: str, left_out: set[str]) -> None:
    assert planned.deps.draft is not None
    before = {spec.stage for spec in planned.deps.draft.steps}
    said_so = planned.hears(said)
    assert before - {spec.stage for spec in planned.deps.draft.steps} >= left_out, said_so


@table(
    "said",
    ["i am not sure about 3 epochs", "if it fits, rank 8", "rank 8 instead of 16", "hm, 2000 rows is a lot",
     "rank -3", "rank 8 and a 7"],
)  # fmt: skip
def test_what_is_no_plain_change_leaves_the_plan_as_it_is(planned: Alone, said: str) -> None:
    before = planned.deps.draft
    planned.hears(said)
    assert planned.deps.draft == before


@table("said", ["start it", "yes", "go ahead", "leg los"])
def test_a_clear_yes_starts_the_plan(planned: Alone, said: str) -> None:
    planned.hears(said)
    assert len(planned.started) == 1 and planned.deps.draft is None


@table("said", ["yes, well…", "na ja", "ok but later", "start it tomorrow", "should I start it?", "maybe yes"])
def test_what_is_no_yes_starts_no_plan(planned: Alone, said: str) -> None:
    planned.hears(said)
    assert planned.started == [] and planned.deps.draft is not None


def test_the_plan_is_dropped_only_with_the_certainty_of_an_answer(
    planned: Alone, monkeypatch: pytest.MonkeyPatch
) -> None:
    for likely, dropped in ((0.8, False), (0.95, True)):
        guesses = [Guess("plan.drop", likely), Guess("remark", 1 - likely)]
        monkeypatch.setattr(Head, "guesses", lambda *_, g=guesses: g)
        planned.hears("enough of all of that now")
        assert (planned.deps.draft is None) == dropped


def test_the_newest_change_of_the_plan_is_taken_back(planned: Alone) -> None:
    before = value(planned, "train", "lora_rank")
    planned.hears("rank 32")
    planned.hears("undo that")
    assert value(planned, "train", "lora_rank") == before


@table(
    ("said", "holds"),
    [
        ("what is different from r1 in this plan?", "in the proposed plan"),
        ("what does the 32 mean?", "setting lora_rank"),
        ("why 32?", "setting lora_rank"),
        ("what was the rank before my last tweak", "It takes about"),
        ("how long with 5 epochs?", "the plan is unchanged"),
        ("why quantize at all?", "Quantization keeps"),
    ],
)
def test_a_question_about_the_plan_is_answered_and_leaves_it_as_it_is(planned: Alone, said: str, holds: str) -> None:
    planned.hears("rank 32")
    draft, before = planned.deps.draft, planned.deps.draft_before
    assert holds in planned.hears(said) and (planned.deps.draft, planned.deps.draft_before) == (draft, before)


@table(
    ("said", "holds"),
    [("set epochs to minus two", "it takes a number above 0"), ("keep the rank we had, and three epochs", "“rank”")],
)
def test_a_value_that_cannot_be_and_a_setting_without_one_change_nothing(planned: Alone, said: str, holds: str) -> None:
    draft = planned.deps.draft
    assert holds in planned.hears(said) and planned.deps.draft == draft


def test_the_last_step_is_left_out_and_rows_are_cut_to_a_number(planned: Alone) -> None:
    planned.hears("leave out the last step")
    assert planned.deps.draft is not None and planned.deps.draft.steps[-1].stage != "deploy"
    planned.hears("cut the rows to 250")
    assert value(planned, "generate", "rows") == 250


def test_whose_words_leave_out_new_rows_and_name_a_run_takes_its_rows(planned: Alone) -> None:
    said = "Actually use the rows from r1, don't write new ones."
    reading = read(said, fallback.context_of(planned.deps, planned.chat.spoken))
    edits, draft = reading.edits, planned.deps.draft
    assert edits is not None and draft is not None and reading.label.startswith("plan.")
    assert plan_words._arguments(reading, edits, draft) == {"rows_from": "r1"}


def test_the_plan_takes_the_rows_of_a_run_that_is_named(planned: Alone) -> None:
    reading = reader().read("no new rows, use those of r1", fallback.context_of(planned.deps, planned.chat.spoken),
                            "plan.rows")  # fmt: skip
    planned.deps.begin_turn("no new rows, use those of r1")
    answer = plan_words.changed(planned.deps, reading)
    assert answer is not None and (answer.arguments == {"rows_from": "r1"} or "rows" in answer.text)


# A wish


def test_a_wish_with_details_of_its_own_is_asked_about_and_is_not_the_example(
    alone: Alone, monkeypatch: pytest.MonkeyPatch
) -> None:
    like = read("our support tickets as json, with the fields team, product and mood")
    for label, planned in (("want.bundled", False), ("want", False)):
        reading = reader().read(like.slots.sentence, fallback.context_of(alone.deps, alone.chat.spoken), label)
        alone.deps.begin_turn(like.slots.sentence)
        answer = plan_words.wanted(alone.deps, reading)
        assert "new behaviour" in answer.text and (alone.deps.draft is not None) == planned


def test_who_wants_pictures_is_told_the_limit_before_describing_anything(alone: Alone) -> None:
    assert "language models on text alone" in alone.hears("train me something that draws photos of cats")


# Stopping


def test_who_orders_a_stop_is_asked_and_who_only_leaves_is_not(tmp_path: Path) -> None:
    start_training(new_builder(tmp_path / "home"))
    alone, asked = Alone(tmp_path / "home"), list[str]()
    alone.deps.end = asked.append
    assert "ends it, after one more question" in alone.hears("stop the training") and len(asked) == 1
    alone.hears("i'm closing the window now, good night everyone")
    assert len(asked) == 1
    alone.chat.close()


def test_what_may_be_a_stop_is_asked_about_only_where_every_word_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start_training(new_builder(tmp_path / "home"))
    alone, asked = Alone(tmp_path / "home"), list[str]()
    alone.deps.end = asked.append
    for likely, times in ((0.99, 0), (0.999, 1)):
        guesses = [Guess("do.stop", likely), Guess("remark", 1 - likely)]
        monkeypatch.setattr(Head, "guesses", lambda *_, g=guesses: g)
        alone.hears("the kettle whistles over there, enough of it")
        assert len(asked) == times
    alone.chat.close()


def test_what_is_served_is_asked_about_where_nothing_runs(alone: Alone) -> None:
    asked = list[str]()
    alone.deps.end = asked.append
    assert "nothing is served" in alone.hears("stop everything") and asked == []
    model = alone.store.newest_of_kind("quantized")[0]
    servers = alone.store.home / "servers"
    servers.mkdir(exist_ok=True)
    (servers / "8411.json").write_text(json.dumps(server_record(model.id)))
    assert "/serve stop" in alone.hears("stop the server") and asked == [""]


def test_what_a_disk_does_to_an_answer_of_code_is_not_told_of_the_driver(
    alone: Alone, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(fallback, "turn", full)
    said = alone.hears("how long did it take?")
    assert "is full" in said and "driver" not in said


def test_what_code_asked_for_and_was_told_is_shown_as_said(alone: Alone) -> None:
    alone.hears("i want a model that answers every complaint with a haiku")
    for words in ("when somebody complains", "a haiku of three lines", "nothing",
                  "late again => a\\nb\\nc", "cold food => d\\ne\\nf", "rude staff => g\\nh\\ni"):  # fmt: skip
        alone.hears(words)
    shown = alone.shown()
    assert re.search(r"when +when somebody complains +said", shown) and re.search(r"what +a haiku .* said", shown)
