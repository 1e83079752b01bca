"""Sentences on a home with a finished run where no driver answers: what they say, change and never do."""

from __future__ import annotations

import errno
import io
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic_ai.models import Model
from rich.console import Console

from tests.agent.driver.test_conversation import Talk
from tests.agent.driver.test_planning import GOAL
from tests.driver.states import make_state
from tests.fixtures import stored_runs
from tests.fixtures.stored_runs import (
    Builder,
    add_baseline,
    add_rows,
    failed_run,
    finished_run,
    new_builder,
    server_record,
    start_training,
)
from tests.fixtures.stored_runs import suite as stored_suite
from tests.fixtures.tables import table
from tests.fixtures.waiting import HANG_S
from tunesmith.agent.driver import by_code, parts, plan_questions, planning
from tunesmith.agent.driver.at_price import Waits, as_answer, aside
from tunesmith.agent.driver.by_code import answered, decide
from tunesmith.agent.driver.look_ups import not_measured, turn_context
from tunesmith.agent.driver.turn_deps import Call
from tunesmith.agent.driver.unsure import did_you_mean, guessed
from tunesmith.agent.queries.answer import Proposed
from tunesmith.agent.queries.arguments import Query
from tunesmith.agent.queries.prices import ApprovalsQuery
from tunesmith.agent.queries.scores import ResultQuery
from tunesmith.agent.queries.steps import StepQuery
from tunesmith.agent.words.acts import Order
from tunesmith.agent.words.reading import Context, Reading, read
from tunesmith.agent.words.slots import slots_of
from tunesmith.memory.errors import StepFailed, TunesmithError
from tunesmith.memory.records import Step
from tunesmith.tools.pipeline.workspace import Decision
from tunesmith.tools.suites.case import Suite


class Alone(Talk):
    """A conversation that code holds by itself; everything that costs something is declined."""

    def hears(self, prompt: str) -> str:
        """What is on the screen then."""
        self.said.clear()
        self.deps.code_first = True
        try:
            self.chat.begin(prompt, no_driver, self.said.append).result(HANG_S)
        except TunesmithError as error:
            self.said.append(str(error))
        return "\n".join(self.said)

    def steps(self) -> list[Step]:
        return self.store.steps()


def no_driver() -> Model:
    raise StepFailed("no driver answers here")


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Alone]:
    finished_run(tmp_path / "home")[0].close()
    one = Alone(tmp_path / "home", [Decision(False, "terminal", "not in a test")] * 9)
    yield one
    one.chat.close()


@pytest.fixture
def planned(alone: Alone) -> Alone:
    alone.turn("make it answer support tickets as JSON", GOAL, "Start it?")
    assert alone.deps.draft is not None
    return alone


ANSWERS = {
    "what was the accuracy of the last run?": "adapter",
    "which model is being served now?": "serv",
    "how long did the training take?": "train",
    "wie lange hat das Training gedauert?": "train",
    "what can you do": "“",
    "train it on /etc/passwd": "/etc/passwd",
    "download Qwen2.5-3B": "Qwen2.5-3B",
    "train again, but not longer than 2 hours": "2 hours",
    "train again with a higher rank": "Which lora_rank",
    "import /tmp/none.jsonl and tell me if any row is in there twice": "/tmp/none.jsonl",
    "how did base, prompted and adapter score in r1?": "no answers of the prompted arm",
    "delete r1": "I delete nothing",
    "approve everything": "I approve nothing",
    "don't import /tmp/rows.jsonl": "not to import, so nothing was begun",
}


@pytest.mark.parametrize("said", ANSWERS)
def test_a_plain_sentence_is_answered_by_code_and_begins_nothing(alone: Alone, said: str) -> None:
    steps = alone.steps()
    found = alone.hears(said)
    assert ANSWERS[said] in found and "no driver" not in found
    assert alone.asked == [] and alone.steps() == steps and alone.deps.draft is None


def test_a_wish_with_details_of_its_own_is_asked_about_and_is_not_the_example(
    alone: Alone, monkeypatch: pytest.MonkeyPatch
) -> None:
    def like_the_example(said: str, context: Context) -> Reading:
        return replace(read(said, context), label="want.bundled", probability=0.99)

    monkeypatch.setattr(planning, "read_or_not", like_the_example)
    found = alone.hears("our support tickets as json, with the fields team, product and mood")
    assert "new behaviour" in found and alone.deps.draft is None


def test_two_terms_that_are_set_against_each_other_are_both_explained(alone: Alone) -> None:
    both = alone.hears("what is the difference between rank and alpha").split("\n")
    assert len(both) == 2 and len(alone.hears("what is rank").split("\n")) == 1


def test_of_two_things_the_one_that_is_not_answered_is_named(alone: Alone, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsure_of_sizes(said: str, context: Context) -> Reading:
        if said.startswith("how long"):  # the whole is what its first half is
            return read("how long did the merge take", context)
        return replace(read(said, context), probability=0.3, sure=False)

    monkeypatch.setattr(parts, "read", unsure_of_sizes)
    monkeypatch.setattr(by_code, "read", unsure_of_sizes)
    said = alone.hears("how long did the merge take and how big is the merged model")
    assert "merge took" in said and "What “how big is the merged model” asks" in said
    monkeypatch.undo()
    said = alone.hears("How many rows were dropped and why, and how long did that take?")
    assert "22 rows dropped" in said and "(I read “how long did that take?” with little certainty.)" in said


@table(
    ("said", "tool", "later"),
    [
        ("quantize r1, and once that's done serve it", "quantize", "once that's done serve it (quantized)"),
        ("Test the merged model, and if that's fine quantize it.", "evaluate", "quantize it"),
        ("merge r1 and then make a gguf of it", "merge", "make a gguf of it"),
    ],
)
def test_of_two_orders_the_first_is_priced_and_the_other_is_said_to_come_after_it(
    alone: Alone, said: str, tool: str, later: str
) -> None:
    alone.deps.begin_turn(said)
    assert len(parts.steps_of(alone.deps)) == 1 and alone.deps.later == (later,)
    steps, screen = len(alone.steps()), io.StringIO()
    alone.deps.show = Console(file=screen, width=160).print
    alone.hears(said)
    assert f"(First {tool}; “{later}” comes after it" in " ".join(screen.getvalue().split())
    assert {step.stage for step in alone.steps()[steps:]} <= {tool}


def test_what_is_not_begun_of_two_orders_is_named_where_the_first_is_refused(alone: Alone) -> None:
    steps = alone.steps()
    assert "“serve it (adapter)” was not begun either" in alone.hears("train again with a higher rank, then serve it")
    assert alone.steps() == steps


@pytest.mark.heavy
@table(
    ("said", "changed", "answered"),
    [
        ("make it rank 32, and what does rank even do?", ("train", "lora_rank", 32), "rank"),
        ("4 epochs rather than 3, oh and what did r1 score?", ("train", "epochs", 4), "target"),
        ("rank 8, and how long will all that take?", ("train", "lora_rank", 8), "It takes about"),
    ],
)
def test_a_change_of_the_plan_and_a_question_are_both_heard(
    planned: Alone, said: str, changed: tuple[str, str, int], answered: str
) -> None:
    stage, name, value = changed
    found = planned.hears(said)
    assert planned.deps.draft is not None and found.count("The plan is changed") == 1
    assert "steps, takes about" not in found, "the changed plan has told that"
    assert {one.fields[name] for one in planned.deps.draft.steps if one.stage == stage} == {value}
    assert answered in found.partition("The plan is changed" if answered == "It takes about" else "Start it, or")[2]


@table("said", ["put it up on a local port", "stell r1 auf einem Port bereit"])
def test_where_any_value_will_do_none_is_asked_for(alone: Alone, said: str) -> None:
    alone.deps.begin_turn(said)
    call = decide(alone.deps)
    assert isinstance(call, Call) and call.tool == "deploy" and "port" not in call.arguments


@table(
    "said",
    [
        "i have a 3060. how long would training a 3b take here", "compare the base and the adapter",
        "which was better, r1 or r2?", "that's fine and good", "my buddy has a 4090. could he train a 14b on it?",
    ],
)  # fmt: skip
def test_what_asks_for_one_thing_is_not_parted(alone: Alone, said: str) -> None:
    alone.deps.begin_turn(said)
    assert parts.steps_of(alone.deps) == [said] and not alone.deps.later


def test_an_order_whose_every_word_is_an_argument_is_a_call_with_these(alone: Alone) -> None:
    alone.deps.begin_turn("train again with rank 4 and 2 epochs")
    call = decide(alone.deps)
    assert isinstance(call, Call) and call.tool == "train"
    assert (call.arguments["lora_rank"], call.arguments["epochs"]) == (4, 2)


@pytest.mark.parametrize(
    "said",
    [
        "i am not sure about 3 epochs", "no quantization problems last time, right", "rank 8 looks low to me",
        "hm, 2000 rows is a lot", "i read that rank 64 is better", "what would 5 epochs cost?",
        "rank 8 and everything on my emails", "not longer than 2 hours",
    ],
)  # fmt: skip
def test_what_is_no_order_or_holds_more_than_an_order_leaves_the_plan(planned: Alone, said: str) -> None:
    before = planned.deps.draft
    found = planned.hears(said)
    assert planned.deps.draft == before and planned.started == [] and planned.asked == [] and found


@pytest.mark.parametrize(
    ("said", "changed"),
    [
        ("rank 8 and 2 epochs", {"lora_rank": 8, "epochs": 2}),
        ("nimm Rang 8", {"lora_rank": 8}),
        ("set the learning rate to 1e-4 please", {"learning_rate": 1e-4}),
    ],
)
def test_values_are_set_in_the_plan_and_told(planned: Alone, said: str, changed: dict[str, object]) -> None:
    found = planned.hears(said)
    assert planned.deps.draft is not None and "The plan is changed" in found
    fields = next(spec.fields for spec in planned.deps.draft.steps if spec.stage == "train")
    assert {name: fields[name] for name in changed} == changed


@pytest.mark.parametrize("said", ["yes, start it", "yes pls", "ok go", "ja", "start it", "go on", "carry out the plan"])
def test_a_yes_to_the_plan_starts_it(planned: Alone, said: str) -> None:
    planned.hears(said)
    assert len(planned.started) == 1


@pytest.mark.parametrize(
    "said",
    [
        "yes but with rank 8 on mars", "maybe", "is that a yes?", "yes?", "好？", "resume r1", "yes with 900 on it",
        "yes, if it stays under an hour", "ja, aber erst morgen", "sí, pero sin cuantizar", "oui mais pas maintenant",
        "好的，但是先等一下", "don't start yet", "start with explaining step two", "start it tonight at 11",
        "fine by me but use my own rows from rows.jsonl", "no, but keep it around", "start it?",
        "start it but not now", "yes, well", "na ja", "ja, gleich", "starte es, aber nicht jetzt", "oui, plus tard",
        "sí, luego", "sì, dopo", "sim, depois", "ja, straks", "tak, zaraz", "yes...", "no, start it", "good start",
    ],
)  # fmt: skip
def test_what_is_no_yes_starts_no_plan(planned: Alone, said: str) -> None:
    planned.hears(said)
    assert planned.started == []


@pytest.mark.parametrize("file", ["rows.jsonl", "/data/rows.csv"])
def test_a_file_of_rows_is_no_base_model(planned: Alone, file: str) -> None:
    before = planned.deps.draft
    assert "model" not in planned.hears(f"fine by me but use my own rows from {file}")
    assert planned.deps.draft == before


@pytest.mark.parametrize(
    ("said", "left_out"),
    [
        ("without the merge and the quantization", {"merge", "quantize"}),
        ("Lass das Mergen und das Quantisieren weg.", {"merge", "quantize"}),
        ("leave out the quantization", {"quantize"}),
        ("Set rank to 8 and drop the merge, quantize and deploy steps.", {"merge", "quantize", "deploy"}),
        ("sin fusionar, cuantizar ni desplegar", {"merge", "quantize", "deploy"}),
    ],
)
def test_each_of_the_steps_that_are_to_be_left_out_is_left_out(planned: Alone, said: str, left_out: set[str]) -> None:
    """The second of two with an article between them was kept, without a word."""
    assert planned.deps.draft is not None
    before = {step.stage for step in planned.deps.draft.steps}
    planned.hears(said)
    assert planned.deps.draft is not None
    assert before - {step.stage for step in planned.deps.draft.steps} == left_out


def test_a_remark_beside_a_change_of_the_plan_is_named_and_keeps_nothing_back(planned: Alone) -> None:
    found = planned.hears("Skip the deploy at the end, I'll do that by hand.")
    assert "without deploy" in found and "About “I'll do that by hand” nothing was done" in found, found
    assert "“the tuesdays”" in planned.hears("rank 8 on the tuesdays"), "what stands in the same part is asked about"


def test_a_step_whose_output_another_one_needs_is_not_left_out_alone_and_that_is_said(planned: Alone) -> None:
    before, found = planned.deps.draft, planned.hears("without merging")
    assert planned.deps.draft == before and "quantize" in found and "the plan is unchanged" in found


def test_a_value_that_is_none_is_refused_with_what_the_field_takes(planned: Alone) -> None:
    draft, answer = planned.deps.draft, planned.hears("epochs = banana")
    assert "'banana'" in answer and "at most 100" in answer and planned.deps.draft == draft


def test_the_last_step_is_left_out_by_that_name(planned: Alone) -> None:
    assert "without deploy" in planned.hears("skip the last step")


def train_fields(one: Alone) -> dict[str, object]:
    assert one.deps.draft is not None
    return dict(next(spec.fields for spec in one.deps.draft.steps if spec.stage == "train"))


def test_half_of_a_value_of_the_plan_is_half_of_what_it_has(planned: Alone) -> None:
    planned.hears("4 epochs")
    assert "train epochs 2" in planned.hears("half the epochs please")
    assert train_fields(planned)["epochs"] == 2
    assert as_answer("half the epochs please", Waits("train")) == "", "at a price it is no value"
    assert as_answer("rank 8 and half the epochs", Waits("train")) == "", "nor is the one beside it taken alone"


def test_the_newest_change_of_the_plan_is_taken_back_and_only_where_one_was_made(planned: Alone) -> None:
    before = planned.deps.draft
    assert "waits as it is" in planned.hears("take that change back") and planned.deps.draft == before
    planned.hears("rank 8")
    assert "as it was before" in planned.hears("take that change back")
    assert planned.deps.draft == before and planned.started == []


def test_the_plan_takes_what_the_newest_training_was_given(planned: Alone) -> None:
    assert "learning_rate 0.0005" in planned.hears("use the settings of the last run")
    assert train_fields(planned)["lora_rank"] == 16 and planned.started == []


def test_a_stop_where_a_plan_waits_names_the_plan_and_leaves_it(planned: Alone) -> None:
    before = planned.deps.draft
    assert "waits as it is" in planned.hears("stop") and planned.deps.draft == before


def test_what_is_served_is_named_where_nothing_else_could_be_stopped(alone: Alone) -> None:
    assert "nothing is served" in alone.hears("stop")
    made = alone.store.artifacts("r1", "quantized")[-1].id
    (alone.store.home / "servers").mkdir()
    (alone.store.home / "servers" / "1-x.json").write_text(json.dumps(server_record(made)))
    found = alone.hears("take the served model offline")
    assert "http://127.0.0.1:8411" in found and "/serve stop" in found
    assert (alone.store.home / "servers" / "1-x.json").exists()
    assert "is served at" in alone.hears("is anything running")


def test_while_a_step_runs_whoever_asks_how_it_goes_is_told_how_far_it_is(alone: Alone) -> None:
    start_training(Builder(alone.store, "r1", now=time.time()), 38)
    for said in ("how's it coming along", "what is left of r1?"):
        assert "is running" in alone.hears(said).split("\n")[0], said
    build = new_builder(alone.store.home)
    add_rows(build, add_baseline(build)[0])
    build.now = time.time()
    start_training(build, 38)
    found = alone.hears("what should I try next in r2?")
    assert "is running" in found and "To try next: train" not in found, found


def test_a_reason_after_a_comparison_of_two_runs_is_of_both(alone: Alone) -> None:
    finished_run(alone.store.home)[0].close()
    alone.hears("compare r1 and r2")
    found = alone.hears("why?").split("\n")[0]
    assert "r1" in found and "r2" in found and "settings" in found, found


EDITS = {
    "yes but with rank 8": "lora_rank=8",
    "rank 8, with my own tokenizer": "",
    "rank 8 and 2 epochs please": "lora_rank=8 epochs=2.0",
    "i am not sure about 3 epochs": "",
    "hm, 3 epochs is a lot": "",
    "vale, pero con rango 8": "lora_rank=8",
    "oui, mais avec un rang de 4": "lora_rank=4",
    "vale, pero con rango 8 y a mi perro": "",
    "rank 8 on my emails": "",
    "change the rank to 8 for uncle Bob": "",
    "make it rank 8 on tuesdays": "",
    "what if i took rank 8": "",
    "yes": "",
}


@table("said", EDITS)
def test_at_a_price_only_values_whose_every_word_was_taken_change_it(said: str) -> None:
    assert as_answer(said, Waits("train")) == EDITS[said]


def test_a_question_about_the_price_that_waits_points_at_it_and_others_are_answered(alone: Alone) -> None:
    price = "train: about 6 min, an estimate by usual rates; disk 61 MiB needed."
    assert price in aside(alone.deps, "how much time will all of this take?", Waits("train", price))
    assert price in aside(alone.deps, "how blue is the whale in the morning?", Waits("train", price))
    assert "price stands above" in aside(alone.deps, "how much time will all of this take?", Waits("train"))
    assert "adapter" in aside(alone.deps, "which cases does the adapter fail?", Waits("train"))
    assert "Type a value as field=value" in aside(
        alone.deps, "ginge das mit weniger Epochen schneller?", Waits("train")
    )
    assert "cannot be priced" in aside(alone.deps, "would rank 4 be quicker?", Waits("train")), (
        "these records lack a size"
    )
    assert "lora_rank was 16" in aside(alone.deps, "not sure, which rank did we use last time?", Waits("train"))
    assert "not sure what it asks" in aside(alone.deps, "how blue is the whale in the morning?", Waits("train"))
    assert (
        aside(alone.deps, "yes, why not?", Waits("train"))
        == aside(alone.deps, "not now, yes?", Waits("train"))
        == aside(alone.deps, "no, too slow", Waits("train"))
        == ""
    )
    assert alone.asked == []


def test_who_orders_a_stop_is_asked_once_about_the_step_that_runs(alone: Alone) -> None:
    asked_about: list[str] = []
    alone.deps.end = asked_about.append
    assert "nothing to stop" in alone.hears("stop the training now please") and asked_about == []
    build = stored_runs.new_builder(alone.store.home)
    step = stored_runs.start_training(build, 3)
    said = alone.hears("stop the training now please")
    assert (
        f"/stop {step}" in said
        and "takes it up from its newest checkpoint, where there is one" in said
        and asked_about == [step]
    )
    assert alone.store.step(step).status == "running"


@pytest.mark.heavy
def test_who_only_leaves_is_told_that_the_step_goes_on_and_is_asked_nothing(alone: Alone) -> None:
    asked_about: list[str] = []
    alone.deps.end = asked_about.append
    step = stored_runs.start_training(stored_runs.new_builder(alone.store.home), 3)
    for said in (
        "I have to close this window now, my train leaves in ten minutes",
        "closing the window, see you tomorrow",
        "that's it for today, I'll close this",
        "closing this",
        "close it",
        "goodbye",
    ):
        assert "without" in alone.hears(said) and asked_about == [], said
    alone.hears("can you stop it?")
    assert asked_about == [step]


@pytest.mark.parametrize(
    "before", ["which runs failed?", "what failed?", "what is running right now?", "list my runs", ""]
)
def test_why_after_a_failure_is_about_that_and_about_no_other_run(alone: Alone, before: str) -> None:
    _, failed = failed_run(alone.store.home)
    if before:
        alone.hears(before)
    assert f"of {failed}" in (said := alone.hears("why?")) and "Why: needs 27.4 GiB" in said


@pytest.mark.heavy
def test_why_after_an_answer_about_another_run_is_about_that_one(alone: Alone) -> None:
    failed_run(alone.store.home)[0].close()
    alone.hears("how did the adapter of r1 do?")
    assert "r1 (" in (said := alone.hears("why?")) and "27.4 GiB" not in said


def test_what_a_disk_does_to_an_answer_of_code_is_not_told_of_the_driver(
    alone: Alone, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(alone.store.home / "x"))

    monkeypatch.setattr(by_code, "looked_up", full)
    said = alone.hears("how did r1 go?")
    assert "is full" in said and "driver" not in said


def test_what_nobody_understood_of_a_change_can_be_left_out(planned: Alone) -> None:
    before = planned.deps.draft
    assert "Type 1 for the rest of it" in planned.hears("rank 8 for uncle bob") and planned.deps.draft == before
    assert "train lora_rank 8" in planned.hears("1")


STOPS = [
    "quantize awq", "evaluate mmlu", "evaluate the failed cases again", "deploy publicly", "train again tomorrow",
    "quantize wisely with awq", "merge slerp", "export onnx", "train again frozen",
]  # fmt: skip


@pytest.mark.heavy
@table("said", STOPS)
def test_a_word_that_no_argument_took_stops_an_order_whatever_it_may_say(alone: Alone, said: str) -> None:
    steps = alone.steps()
    assert "cannot be priced" not in alone.hears(said) and alone.steps() == steps and not alone.asked


@table("said", ["qunatize the merged modle", "quantsie r1", "evalaute teh adpater"])
def test_a_slip_of_the_finger_is_no_word_that_stops_an_order(alone: Alone, said: str) -> None:
    assert "I could not place" not in alone.hears(said)


@pytest.mark.heavy
@table(
    "said", ["rank 16 if it fits", "rank 16 unless that is slower", "avoid rank 16", "anything except rank 16",
             "what if rank were 16 and epochs 5", "what if rank were 16 and batch size 8", "undo the rows"],
)  # fmt: skip
def test_what_sets_no_value_changes_no_plan(planned: Alone, said: str) -> None:
    before = planned.deps.draft
    planned.hears(said)
    assert planned.deps.draft == before


def test_a_yes_to_the_price_that_was_asked_about_prices_the_step_and_asks(alone: Alone) -> None:
    alone.deps.proposals = (Proposed("r1", "merge", {}),)
    assert "No question of mine is open" not in alone.hears("ok do it")
    assert "No question of mine is open" in alone.hears("ok do it"), "a proposal holds once"


def test_who_asks_what_failed_is_told_how_it_goes_on(tmp_path: Path) -> None:
    failed_run(tmp_path / "home")[0].close()
    one = Alone(tmp_path / "home")
    for said in ("what failed?", "did the training get through?"):
        assert "“Go on” tries it again" in one.hears(said), said
    one.chat.close()


@pytest.mark.heavy
def test_who_wants_pictures_is_told_the_limit_before_describing_anything(alone: Alone) -> None:
    for said in ("train me something that draws photos of cats", "I want a model that describes my product photos"):
        told = alone.hears(said)
        assert "on text alone" in told and "1 of 4" not in told and not alone.asked, said
        assert "1 of 4" in alone.hears("1"), "it is text all the same"
        alone.hears("drop it")
    for said in ("i want a model that answers orders as one line of JSON", "a model that turns my notes into haikus"):
        assert "on text alone" not in alone.hears(said), said
        alone.hears("drop it")


def test_a_paste_of_many_sentences_is_read_in_few_parts(alone: Alone) -> None:
    text = "We sell tea. People ask and complain. Answers are short and kind. Then a name. No prices. Nor fun."
    assert len([*parts.parted(text, turn_context(alone.deps))]) == 4


def test_two_changes_of_the_plan_are_one(planned: Alone) -> None:
    planned.deps.begin_turn(both := "rank 8, and forget about deploying")
    assert parts.steps_of(planned.deps) == [both]
    said = planned.hears(both)
    assert said.count("The plan is changed") == 1 and "without deploy, train lora_rank 8" in said


def test_what_is_asked_of_a_test_that_is_only_ordered_comes_after_it(alone: Alone) -> None:
    alone.deps.begin_turn("evaluate the merged model and compare it with the base")
    assert parts.steps_of(alone.deps) == ["evaluate the merged model"]
    assert alone.deps.later == ("compare it with the base",)


def test_a_part_that_nothing_answers_is_named_and_the_other_is_not_done_twice(planned: Alone) -> None:
    said = planned.hears("halve the epochs, and what is a zorble?")
    assert said.count("The plan is changed") <= 1 and "no driver" not in said


def test_a_base_without_rows_is_tried_on_made_up_ones_where_that_is_said(tmp_path: Path) -> None:
    home, _ = make_state(tmp_path / "home", "rows")
    home.close()
    one = Alone(tmp_path / "home", [Decision(False, "terminal", "not in a test")] * 2)
    assert "preflight needs the dataset, which r1 does not have yet" in one.hears("preflight") and not one.asked
    for said in ("preflight on made-up rows", "run preflight made_up=true"):
        assert "the user said no" in one.hears(said)
    assert [plan.request["made_up"] for plan in one.asked] == [True, True]
    one.chat.close()


def test_an_order_that_comes_too_early_names_what_comes_before_it_and_begins_nothing(tmp_path: Path) -> None:
    home, _ = make_state(tmp_path / "home", "dataset")
    home.close()
    one = Alone(tmp_path / "home", [Decision(False, "terminal", "not in a test")] * 2)
    steps = one.steps()
    said = one.hears("quantize r1")
    assert "needs the merged model, which r1 does not have yet. Before it come preflight, train, evaluate" in said
    assert one.steps() == steps and not one.asked and [each.stage for each in one.deps.proposals] == ["preflight"]
    assert "needs" not in one.hears("train r1 with rank 4"), "what is there is enough"
    start_training(Builder(one.store, "r1", now=time.time()), 3)
    said = one.hears("evaluate the adapter of r1 straight away")
    assert "is running" in said and "Order evaluate once it has ended; nothing was begun" in said, said
    one.chat.close()


def test_a_step_that_runs_tells_the_memory_of_its_price(alone: Alone) -> None:
    start_training(Builder(alone.store, "r1", now=time.time()), 38)
    assert " of memory at most" in alone.hears("how is the training going?")


@pytest.mark.heavy
@table(
    ("before", "said", "query"),
    [
        ("how long did the training of r1 take?", "and the memory?",
         StepQuery(about="memory", stage="train", run="r1")),
        ("which steps did I agree to?", "and which not?", ApprovalsQuery(decision="no")),
        ("how did the adapter of r1 do in the target block?", "en de algemene?",
         ResultQuery(about="passed", run="r1", arm="adapter", block="general")),
    ],
)  # fmt: skip
def test_what_follows_on_an_answer_changes_one_thing_of_its_question(
    alone: Alone, before: str, said: str, query: Query
) -> None:
    alone.hears(before)
    alone.hears(said)
    assert alone.deps.last_query == query


def test_a_bad_value_is_refused_before_what_was_not_read(planned: Alone) -> None:
    assert "epochs is -2" in planned.hears("make it minus two epochs")
    assert "lora_rank is -3" in planned.hears("use rank -3 and a zillion epochs for uncle bob")


def test_the_old_value_of_a_setting_is_that_of_the_last_training_where_the_plan_was_not_changed(
    planned: Alone,
) -> None:
    rank = next(step.request["lora_rank"] for step in planned.steps() if step.stage == "train")
    assert planned.deps.draft is not None and planned.deps.draft_before is None
    assert f"lora_rank {rank}" in planned.hears("put the rank back to what it was")


def test_what_an_order_holds_beside_itself_is_named_and_keeps_nothing_back(alone: Alone) -> None:
    shown: list[Any] = []
    alone.deps.show = shown.append
    assert "quantize cannot be priced" in alone.hears("quantize it, my uncle bob keeps nagging me")
    assert "(About “my uncle bob keeps nagging me” nothing was done.)" in [one.text.plain for one in shown]
    assert "cannot be priced" not in alone.hears("quantize it, no wait never ever bob"), "what denies is no remark"
    assert "cannot be priced" not in alone.hears("quantize it for my uncle bob")
    assert "cannot be priced" not in alone.hears("quantize it, for my dear uncle bob")


@pytest.mark.heavy
def test_a_number_of_the_plan_names_the_setting_that_another_one_is_for(planned: Alone) -> None:
    planned.hears("rank 24")
    assert "train lora_rank 12" in planned.hears("24 is a lot, make it twelve")
    assert "was 24, now 12" in plan_questions.last_change(planned.deps).text
    before = planned.deps.draft
    planned.hears("25 is a lot, make it thirteen")
    assert planned.deps.draft == before, "the plan has no 25"


def test_who_asks_what_is_going_on_where_nothing_is_hears_what_is_next(alone: Alone) -> None:
    found = alone.hears("is anything running right now?")
    assert "Nothing is running" in found and "of all target cases pass" in found


def test_a_number_that_something_is_not_to_have_is_no_value_of_it(planned: Alone) -> None:
    planned.hears("quantize to 4 bits")
    before = planned.deps.draft
    assert "scheme W8A8" in planned.hears("8 bits rather than 4 please") and planned.deps.draft != before
    before = planned.deps.draft
    assert "“7” I could not place" in planned.hears("4 bits and also 7") and planned.deps.draft == before


def test_who_goes_on_after_a_no_is_asked_about_that_step_again(tmp_path: Path) -> None:
    stored_runs.baseline_run(tmp_path / "home")[0].close()
    one = Alone(tmp_path / "home", [Decision(False, "terminal", "not in a test")] * 9)
    found = one.hears("go on")
    one.chat.close()
    assert "generate" in found and "source is missing" not in found


def test_a_file_that_was_looked_into_is_meant_by_it(alone: Alone, tmp_path: Path) -> None:
    (tmp_path / "mine.jsonl").write_text('{"prompt": "a b c", "completion": "d"}\n' * 3, encoding="utf-8")
    assert "about 3 records" in alone.hears(f"how many rows are in {tmp_path / 'mine.jsonl'}?")
    assert "2 repeat a row" in alone.hears("are there any doubles in it?")


def test_a_question_behind_an_order_is_answered_before_its_price(alone: Alone) -> None:
    both = alone.hears("serve the quantized r1 and tell me which cases it lost")
    assert both.index("were lost") < both.index("the user said no")


def test_two_questions_are_answered_one_after_the_other_and_a_follow_up_keeps_what_was_asked(alone: Alone) -> None:
    both = alone.hears("how long did the training take, and which cases failed?")
    assert "train" in both and "case" in both
    alone.hears("how long did the training take?")
    assert "evaluate" in alone.hears("and the evaluation?")


def test_a_question_is_about_the_cases_of_a_label_that_the_suite_of_the_run_has(alone: Alone) -> None:
    assert not turn_context(alone.deps).labels, "numbers of orders are no labels"
    [suite] = alone.store.artifacts("r1", "suite")
    wanted = {"type": "object", "properties": {"team": {"const": "billing"}, "urgency": {"const": "low"}}}
    cases = [case.model_dump(mode="json") for case in stored_suite().cases]
    for case in [case for case in cases if case["block"] == "target"][::2]:
        case["assertions"].append({"type": "is-json", "value": wanted})
    Path(suite.path).write_text(Suite.model_validate({"cases": cases}).to_json())
    assert turn_context(alone.deps).labels == ("billing", "low")
    few, every = alone.hears("which billing cases failed?"), alone.hears("which target cases failed?")
    assert " of 30 billing cases" in few.split("\n")[0] and " of 60 target cases" in every.split("\n")[0], (few, every)


def test_two_runs_are_compared_on_the_block_that_is_named_and_on_no_other(alone: Alone) -> None:
    finished_run(alone.store.home)[0].close()
    assert "  target: r" in alone.hears("compare r1 with r2") and "  target: r" not in alone.hears(
        "only the general ones"
    )
    one_block = alone.hears("compare r1 and r2 in the tools block").splitlines()
    assert len(one_block) == 2 and one_block[1].startswith("  tools: r")


@pytest.mark.heavy
def test_a_follow_up_goes_to_the_other_run_only_where_it_says_so(alone: Alone) -> None:
    finished_run(alone.store.home)[0].close()
    assert "of r2" in alone.hears("how big is the adapter?")
    for said, run in (("and the other one?", "r1"), ("und der andere?", "r2")):
        assert f"of {run}" in alone.hears(said)
    assert "of r1" not in alone.hears("and its digest?")


def test_what_broke_off_is_told_with_how_it_goes_on(alone: Alone) -> None:
    failed_run(alone.store.home)[0].close()
    said = alone.hears("why did the training fail?")
    assert "“Go on” tries it again, from its beginning, as no checkpoint of it is on this disk, or `tunesmith" in said
    assert "Go on" not in alone.hears("how long did the training of r1 take?")


@pytest.mark.heavy
def test_the_name_of_another_run_asks_the_question_before_of_that(alone: Alone) -> None:
    assert "is done" in alone.hears("r1"), "without a question before it, how the run went"
    alone.hears("which rank did the training have?")
    assert "is done" in alone.hears("r1"), "the question spoke of it already"
    finished_run(alone.store.home)[0].close()
    assert "of r1" in alone.hears("which rank did r1 have?")
    other = alone.hears("r2?")
    assert "lora_rank" in other and "of r2" in other
    assert "is done" in alone.hears("r2")


def test_what_is_asked_of_it_is_asked_of_the_run_that_was_just_named(alone: Alone) -> None:
    finished_run(alone.store.home)[0].close()
    with alone.store.write() as connection:
        connection.execute(
            "UPDATE eval_results SET passed = 0 WHERE run = 'r2' AND arm <> 'base' AND case_id LIKE '%1'"
        )
    assert "In r2" in alone.hears("which cases failed?")
    assert alone.hears("which run is the best?").startswith("r1")
    assert "In r1" in alone.hears("which of its cases failed?")


@pytest.mark.parametrize(
    "said", ["", "   ", "?!", "\x1b[31m\x00\x07", "训练一个模型", "🙂", "x" * 1_000_000, "word " * 50_000]
)
def test_bad_input_gets_a_plain_sentence_and_begins_nothing(alone: Alone, said: str) -> None:
    found = alone.hears(said)
    assert found and len(found) < 600 and alone.asked == [] and alone.deps.draft is None
    assert "Traceback" not in found and "\x1b" not in found


def test_words_that_nobody_can_answer_get_where_one_stands_and_the_nearest_questions(alone: Alone) -> None:
    found = alone.hears("colourless green adapters sleep furiously near the quantized lake")
    stands, _, offered = found.partition("\nDid you mean: ")
    assert offered.startswith("1 “") and ", 3 “" in offered and offered.count("“") == 3
    assert stands.startswith("I did not understand that; nothing was changed or begun.\nr1 (")
    assert "of all target cases pass" in stands and len(stands.splitlines()) <= 6


@table(
    ("question", "heading"),
    [("was the run interrupted", "I am not certain what you ask"), ("quantize it", "I did not understand that")],
)
def test_where_things_stand_is_headed_as_a_guess_where_it_answers_what_words_are_nearest_to(
    alone: Alone, question: str, heading: str
) -> None:
    alone.deps.begin_turn("mumble mumble")
    alone.deps.nearest = (question,)
    assert did_you_mean(alone.deps).startswith(f"{heading}")


def test_the_licence_of_a_base_is_that_of_the_base_and_not_of_this_program(alone: Alone) -> None:
    found = alone.hears("may I sell what came out of the base, what licence has it?")
    assert "The base of r1, " in found and "legal advice" in found


def test_a_failed_case_is_shown_with_what_was_wanted(alone: Alone) -> None:
    assert "wanted: " in alone.hears("show me two cases that the quantized model fails")


def test_the_newest_decisions_are_told_where_none_lies_in_the_span(alone: Alone) -> None:
    assert "the newest:" in alone.hears("what did I approve on 2019-01-01?")


@table(
    ("said", "named"),
    [("what does it reach on MMLU?", "MMLU"), ("how good is it on BoolQ", "BoolQ"), ("is its JSON valid", ""),
     ("HOW GOOD IS IT", ""), ("the LoRA of the SmolLM2-135M, as GGUF", "")],
)  # fmt: skip
def test_a_name_that_is_no_word_of_this_trade_is_said_not_to_be_measured(said: str, named: str) -> None:
    assert not_measured(slots_of(said, ())).startswith(f"“{named}” was not measured" if named else "")
    assert bool(not_measured(slots_of(said, ()))) == bool(named)


def test_an_order_for_what_was_before_goes_back_to_what_was_served(alone: Alone) -> None:
    for unread in ("davor", "vorherigen", "undo"):
        order = Order("deploy", unread=(unread,))
        back = replace(read("davor"), label="do.deploy", order=order, likely=("do.deploy", "talk.roll_back_how"))
        call = answered(alone.deps, back)
        assert isinstance(call, Call) and call.arguments.get("rollback") is True, call
    other = replace(back, order=Order("deploy", unread=("tuesday",)))
    assert not isinstance(answered(alone.deps, other), Call), "what nobody understood is asked about"


@table(
    ("said", "values"),
    [
        ("turn the rank back to 8 and leave 3 epochs", {"lora_rank": 8, "epochs": 3.0}),
        ("rang hoch auf 32, 2 epochen", {"lora_rank": 32, "epochs": 2.0}),
    ],
)
def test_a_way_between_a_name_and_its_number_parts_them_not(said: str, values: dict[str, object]) -> None:
    edits = read(said, Context(planned=("train",), moment="planned")).edits
    assert edits is not None and {one.field: one.value for one in edits.values} == values, edits


def test_an_order_is_carried_out_without_what_nobody_understood_only_once_that_is_picked(alone: Alone) -> None:
    said = alone.hears("train it again with rank 4 and sprinkles")
    assert "“sprinkles”" in said and "Type 1 for train without it" in said and not alone.asked
    assert "train cannot be priced" in alone.hears("1")
    assert "cannot be priced" not in alone.hears("1"), "an offer holds for one turn"


@pytest.mark.heavy
def test_a_number_alone_means_the_words_before_it_as_the_question_that_was_offered_by_it(alone: Alone) -> None:
    offered = ("and the training bit of r1, eh", ("run.overview", "step.time", "do.quantize"))
    alone.deps.offered = offered
    assert "train took" in alone.hears("2") and not alone.asked
    assert "train took" not in alone.hears("2"), "an offer holds for one turn"
    alone.deps.offered = offered
    alone.deps.forget()
    assert "train took" not in alone.hears("2"), "another conversation knows no offer"
    alone.deps.offered = offered
    assert "quantize cannot be priced: the records of r1" in alone.hears("3"), "what is no argument of it is left out"
    said = alone.hears("colourless green adapters sleep furiously near the quantized lake")
    first = said.split("Did you mean: 1 “")[1].split("”")[0]
    assert alone.deps.offered[1][0] == read(first).label


def test_a_question_that_is_read_with_little_certainty_is_answered_as_a_guess_where_no_driver_is(alone: Alone) -> None:
    alone.deps.code_first = True
    reading = replace(read("how long did the training take?"), sure=False, probability=0.5)
    alone.deps.unsure, alone.deps.nearest = reading, ("one", "two", "three")
    found = guessed(alone.deps)
    assert found is not None and "train" in found.text and "1 “two”, 2 “three”? Type its number" in found.text
    alone.deps.unsure = replace(read("train again with rank 4"), sure=False, probability=0.7)
    assert guessed(alone.deps) is None, "an act is never guessed"


@pytest.mark.parametrize("order", ["train it", "quantize it", "train it again with rank 8"])
def test_a_step_whose_records_lack_what_todays_price_is_made_of_says_so(alone: Alone, order: str) -> None:
    said = alone.hears(order)
    assert "cannot be priced: the records of r1 lack 'config'" in said, said
    assert not alone.asked


@table("said", ["why was r1234 so slow?", "r1234 blorp the flurb whatever", "r1234?"])
def test_a_run_that_is_not_there_is_named_whatever_else_was_understood(alone: Alone, said: str) -> None:
    assert "There is no run r1234; the runs are r1" in alone.hears(said)
