"""The proposed plan against a run, and a step put into it: at its place, once, measured as its like are."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.agent.driver.test_conversation import Talk
from tests.agent.driver.test_planning import GOAL, fields, steps
from tests.bench.strangers import plan_of, shell_in
from tests.driver.stranger_states import home_of_state
from tests.fixtures.stored_runs import finished_run
from tests.fixtures.tables import table
from tunesmith.agent.driver import choosing, plan_questions, planning
from tunesmith.agent.driver.look_ups import turn_context
from tunesmith.agent.driver.planning import without
from tunesmith.agent.words.edits import Edits, edits_of
from tunesmith.agent.words.reading import read, reader
from tunesmith.agent.words.slots import slots_of
from tunesmith.memory.errors import NotFound
from tunesmith.tools.pipeline.plan_file import StepSpec


@pytest.fixture
def planned(tmp_path: Path) -> Iterator[Talk]:
    finished_run(tmp_path / "home")[0].close()
    one = Talk(tmp_path / "home")
    one.turn("make it answer support tickets as JSON", GOAL, "Start it?")
    yield one
    one.chat.close()


def added(talk: Talk, words: str) -> str:
    answer = plan_questions.added(talk.deps, slots_of(words))
    return answer.text if answer else ""


def leave_out(talk: Talk, *stages: str) -> None:
    for stage in stages:
        assert talk.deps.draft is not None
        talk.deps.draft = talk.deps.draft.with_steps(without(talk.deps.draft.steps, stage, ""))


def test_a_step_that_was_left_out_goes_back_to_its_place_and_is_measured_as_the_others(planned: Talk) -> None:
    whole, measured = steps(planned), fields(planned, "evaluate")["max_tokens"]
    leave_out(planned, "deploy", "quantize")
    assert "quantize" not in steps(planned)
    for words in ("put the quantizing back in", "evaluate after quantizing", "also deploy at the end"):
        assert " now; about " in added(planned, words), words
    assert steps(planned) == whole
    assert planned.deps.draft is not None
    evaluated = [spec.fields for spec in planned.deps.draft.steps if spec.fields.get("arm") == "quantized"]
    assert evaluated[0]["max_tokens"] == measured


def test_a_step_that_the_plan_has_is_not_put_in_twice(planned: Talk) -> None:
    before = planned.deps.draft
    assert "already" in added(planned, "also merge it") and planned.deps.draft == before
    assert "has that already (quantize)" in added(planned, "also quantize it please")
    for words in ("add a test behind the quantizing", "füge nach dem Quantisieren noch eine Prüfung ein"):
        assert "has that already (evaluate prompted, evaluate adapter" in added(planned, words), words
    assert "has that already (evaluate prompted, evaluate adapter" in added(
        planned, "nach dem Quantisieren bitte nochmal testen"
    )


def test_a_step_that_is_denied_is_not_put_in(planned: Talk) -> None:
    leave_out(planned, "deploy")
    before = planned.deps.draft
    assert added(planned, "no deploy, please") == "" and planned.deps.draft == before


def test_a_step_without_what_it_needs_is_refused_and_the_plan_stays(planned: Talk) -> None:
    leave_out(planned, "deploy", "quantize", "merge")
    before = planned.deps.draft
    said = added(planned, "quantize it too")
    assert "no merged to work on" in said and "unchanged" in said and planned.deps.draft == before


def test_the_plan_is_set_against_a_run_by_value_and_by_step(planned: Talk) -> None:
    assert planned.deps.draft is not None
    had = planned.store.steps("r1")
    trained = next(step for step in had if step.stage == "train")
    specs = [
        spec.model_copy(update={"fields": {**spec.fields, "epochs": trained.request["epochs"] + 1}})
        if spec.stage == "train"
        else spec
        for spec in planned.deps.draft.steps
        if spec.stage != "deploy"
    ]
    planned.deps.draft = planned.deps.draft.with_steps(tuple(specs))
    said = plan_questions.compared(planned.deps, "r1").text
    assert f"train epochs {trained.request['epochs'] + 1:g} instead of {trained.request['epochs']:g}" in said
    assert "steps that only the plan has" in said and "The plan is unchanged" in said


def test_only_the_setting_that_is_named_is_taken_from_a_run_and_a_factor_is_of_its_value(planned: Talk) -> None:
    trained = next(step for step in planned.store.steps("r1") if step.stage == "train")

    def taken(words: str) -> dict[str, object]:
        edits = choosing.settings_before(planned.deps, slots_of(words), Edits())
        return {one.field: one.value for one in edits.values} if edits else {}

    assert taken("use the same rank as last time") == {"lora_rank": trained.request["lora_rank"]}
    assert taken("give it twice the epochs r1 had") == {"epochs": 2 * trained.request["epochs"]}
    assert taken("put the rows back to what they were") == {}, "train has no such setting"
    everything = taken("same settings as r1")
    assert {"lora_rank", "epochs", "learning_rate"} <= set(everything)


@table(
    ("said", "taken"),
    [
        ("keep the rank of before, the two epochs are good", True),
        ("hou de rank van daarvoor, 2 epochs is goed", True),
        ("leave the rank as before, the two epochs are good", False),  # as the plan has it
        ("change the rank we had before, the two epochs are good", False),
        ("do not keep the rank we had before, 2 epochs", False), ("keep the rank before training, 2 epochs", False),
    ],
)  # fmt: skip
def test_a_setting_that_is_kept_from_before_is_that_of_the_run_unless_it_was_changed(
    planned: Talk, said: str, taken: bool
) -> None:
    trained = next(step for step in planned.store.steps("r1") if step.stage == "train")
    plan = planned.deps.draft
    assert plan is not None
    other = [replace_fields(one, lora_rank=64, epochs=2.0) for one in plan.steps]
    planned.deps.draft, planned.deps.draft_before = plan.with_steps(tuple(other)), None
    reading = reader().read(said, turn_context(planned.deps), "plan.set")
    assert reading.edits is not None
    rank = trained.request["lora_rank"] if taken else None

    def found() -> object:
        edits = choosing.edits_in(planned.deps, reading, reading.edits or Edits())
        return {one.field: one.value for one in edits.values}.get("lora_rank")

    assert found() == rank
    planned.deps.draft_before = plan.with_steps(tuple(replace_fields(one, lora_rank=32) for one in other))
    assert found() is None, "which before is not told"


def replace_fields(spec: StepSpec, **fields: object) -> StepSpec:
    return spec.model_copy(update={"fields": {**spec.fields, **fields}}) if spec.stage == "train" else spec


def test_without_a_run_there_is_nothing_to_compare_with(tmp_path: Path) -> None:
    talk = Talk(tmp_path / "home")
    talk.turn("make it answer support tickets as JSON", GOAL, "Start it?")
    assert "no run yet" in plan_questions.compared(talk.deps, "").text
    talk.chat.close()


def test_a_card_that_is_named_is_what_the_plan_is_held_against_and_nothing_of_it_changes(planned: Talk) -> None:
    before = planned.deps.draft
    for words, said in (
        ("does rank 64 fit my 3060", "On RTX 3060 the plan with train lora_rank 64 fits; "),
        ("what if I used rank 64 on a 4090?", "On RTX 4090 the plan with train lora_rank 64 fits; "),
        ("would rank 64 fit on 2 gb?", "On a card of 2 GB the plan with train lora_rank 64 does not fit: "),
    ):
        reading = read(words, turn_context(planned.deps))
        assert reading.sure and reading.edits is not None, words
        answer = plan_questions.imagined(planned.deps, reading.slots, reading.edits)
        assert answer is not None and answer.text.startswith(said), (words, answer)
        assert ("(preflight) needs 3.8 GiB of VRAM" in answer.text) == ("not fit" in said), "as the plan is refused"
    assert planned.deps.draft == before


@pytest.mark.heavy
def test_what_a_change_would_take_has_memory_and_disk_and_without_one_it_is_the_last_change_that_is_meant(
    planned: Talk,
) -> None:
    def would(words: str) -> str:
        edits = edits_of(slots_of(words), turn_context(planned.deps).planned, lambda word: True, leaves_out=False)
        answer = plan_questions.imagined(planned.deps, slots_of(words), edits)
        return answer.text if answer else ""

    draft = planned.deps.draft
    assert draft is not None and would("what does that do to the time?") == "", "nothing was changed"
    said = would("what would change with rank 4")
    assert "train lora_rank 4" in said and said.count("free RAM (in ") + said.count("on the card (in ") == 2, said
    assert planned.deps.draft == draft and said.count("of disk") == 2
    planned.deps.change(planning.edited_plan(planned.deps, draft, set_to("rank 64"))[0])
    assert "has that already" in would("and with rank 64?")
    said = would("and what does that do to the memory?")
    assert "lora_rank was the usual, now 64" in said and said.count("of disk") == 2


def set_to(words: str) -> Edits:
    return edits_of(slots_of(words), ("train",), lambda word: True, leaves_out=False)


def test_a_number_that_one_setting_of_the_plan_has_names_it(planned: Talk) -> None:
    draft = planned.deps.draft
    assert draft is not None
    planned.deps.change(planning.edited_plan(planned.deps, draft, set_to("rank 48"))[0])
    assert plan_questions.value_and_reason(planned.deps, slots_of("is 48 overkill?")).startswith(
        "train lora_rank is 48"
    )
    assert plan_questions.value_and_reason(planned.deps, slots_of("is 47 overkill?")) == ""


def test_why_a_value_of_the_plan_is_what_it_is_is_told_as_far_as_it_is_known(planned: Talk) -> None:
    draft = planned.deps.draft
    assert draft is not None
    planned.deps.change(planning.edited_plan(planned.deps, draft, set_to("rank 48"))[0])
    for words, told in (
        ("why 48?", "train lora_rank is 48: the last change set it so, before that it was the usual. ("),
        ("why 180?", "generate rehearsal_rows is 180: nobody chose another value: it is the default. ("),
        ("why 60?", "is 60: it stands so in the plan, and why is not recorded; left alone it would be 80. ("),
    ):
        assert told in plan_questions.value_and_reason(planned.deps, slots_of(words)), words


def test_rows_of_a_run_before_take_the_place_of_those_that_the_plan_would_write(planned: Talk) -> None:
    draft = planned.deps.draft
    assert draft is not None
    said = plan_questions.with_rows_of(planned.deps, "r1").text
    changed = {spec.stage: spec.fields for spec in planned.deps.draft.steps} if planned.deps.draft else {}
    lines = Path(str(changed["import"]["source"])).read_text().splitlines()
    kept = {row.row_id for row in planned.store.rows(rows_step(planned)) if row.usable}
    assert {json.loads(line)["id"] for line in lines} == kept and f"the {len(kept)} rows that r1 kept" in said
    assert (
        "writes none of the behaviour" in said
        and changed["generate"]["rows"] == 0
        and Path(str(changed["import"]["source"])).stat().st_mode & 0o77 == 0
    )
    others = [spec for spec in draft.steps if spec.stage not in ("generate", "import")]
    assert planned.deps.draft and [spec for spec in planned.deps.draft.steps if spec in others] == others
    plan_questions.undone(planned.deps)
    assert planned.deps.draft == draft
    with pytest.raises(NotFound, match="r7"):
        plan_questions.with_rows_of(planned.deps, "r7")


def rows_step(talk: Talk) -> str:
    return next(step.id for step in talk.store.steps("r1") if step.stage == "generate")


def plan_after(tmp_path: Path, state: str, *said: str) -> tuple[str, dict[str, dict[str, object]]]:
    """The screen after these words in a state, and the fields of the open plan's steps then."""
    with home_of_state(tmp_path / "home", state), shell_in(tmp_path / "home", [], None) as shell:
        deps = shell.talk.chat().deps
        deps.draft = plan_of(state)
        for line in said:
            shell.type(line)
        steps = {spec.stage: spec.fields for spec in deps.draft.steps} if deps.draft else {}
        return " ".join(shell.screen.getvalue().split()), steps


OPEN = "r1 was trained with rank 8 and 2 epochs; a plan for a new run is open: rank 16, 3 epochs, quantize"
WRITES = "r1 has rows; a plan for a new run is open: generate 400 rows, train with rank 16, 3 epochs, quantize"


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("said", "rank", "epochs"),
    [
        (("give it r1's rank but 5 epochs",), 8, 5.0),
        (("use r1's epochs, the rest is fine",), 16, 2.0),
        (("just copy r1's config please",), 8, 2.0),
        (("use r1's epochs but keep the larger rank",), 16, 2.0),
        (("same epochs as r1, leave the rank alone",), 16, 2.0),
        (("all as in r1 but keep the rank",), 16, 2.0),
        (("keep the rank and epochs of r1",), 8, 2.0),
        (("the rank as in r1, otherwise 64",), 8, 3.0),
        (("the rank of r1 if that is lower than 12",), 16, 3.0),
        (("rank 64", "hm, back to 16"), 16, 3.0),
        (("rank 8, old bean",), 8, 3.0),
        (("set lora_rnk to 4",), 4, 3.0),
        (("zwei Durchgänge bitte",), 16, 2.0),
        (("16 is too much, make it 4",), 4, 3.0),
        (("rank 64 would be too much",), 16, 3.0),
        (("rank 64 would be lunacy",), 16, 3.0),
        (("lower the learning rate a bit",), 16, 3.0),
        (("drei Epochen kommen mir viel vor, nimm lieber zwei wie beim letzten Mal",), 16, 2.0),
        (("rank 16 looks like bragging, 8 is plenty for a shop",), 8, 3.0),
        (("three epochs seem a lot, r1 had 2",), 16, 3.0),
        (("three epochs are rather many, the two of us find",), 16, 3.0),
        (("if I were braver I'd take rank 64",), 16, 3.0),
        (("should it fit, 9 epochs; if not, leave it",), 16, 3.0),
        (("rank 8 if you can",), 8, 3.0),
        (("16 is rank enough for the two German testers",), 16, 3.0),
        (("3 epochs of which 2 on the hard rows",), 16, 3.0),
        (("3 epochs will do, unless you manage 6",), 16, 3.0),
    ],
)
def test_words_change_of_the_plan_what_they_order_and_nothing_by_a_judgement(
    tmp_path: Path, said: tuple[str, ...], rank: int, epochs: float
) -> None:
    screen, steps = plan_after(tmp_path, OPEN, *said)
    assert (steps["train"]["lora_rank"], steps["train"]["epochs"]) == (rank, epochs), screen


@pytest.mark.parametrize(
    ("said", "rows", "told"),
    [
        ("don't write any new rows, those that r1 has will do, and 5 epochs", 0, "rows that r1 kept"),
        ("no new rows at all, and 5 epochs", 400, "(About “no new rows” nothing was done.)"),
        ("don't use the rows of r1, and 5 epochs", 400, "nothing was done"),
        ("change nothing about the rows but make it 5 epochs", 400, "The plan is"),
    ],
)
def test_rows_that_are_not_to_be_written_are_those_of_the_run_that_is_named_or_it_is_told(
    tmp_path: Path, said: str, rows: int, told: str
) -> None:
    screen, steps = plan_after(tmp_path, WRITES, said)
    assert (steps["generate"]["rows"], steps["train"]["lora_rank"]) == (rows, 16) and told in screen, screen
    assert (steps["train"]["epochs"] == 5.0) is ("could not place" not in screen), screen


def test_what_is_not_to_become_of_the_last_step_leaves_it_in(tmp_path: Path) -> None:
    assert "deploy" in plan_after(tmp_path, OPEN, "I don't want the last step to break")[1]


@pytest.mark.parametrize(
    ("said", "rank", "told", "not_told"),
    [
        (
            "add a smoke test and make the rank four times smaller",
            4,
            "The plan has that already (preflight)",
            "About “",
        ),
        ("put an export as gguf at the end, and rank 8", 8, "release gguf", "is unchanged"),
        (
            "put the quantizing in before the merge, on my grandmother's laptop",
            16,
            "The plan is unchanged. About “",
            "is changed",
        ),
        ("add a gguf at the end, for my grandmother", 16, "release gguf", "is unchanged"),
    ],
)
def test_what_is_said_beside_a_step_that_is_added_is_done_or_told(
    tmp_path: Path, said: str, rank: int, told: str, not_told: str
) -> None:
    screen, steps = plan_after(tmp_path, OPEN, said)
    assert steps["train"]["lora_rank"] == rank and told in screen and not_told not in screen, screen


@pytest.mark.parametrize("said", ["400 seems meagre. Take 900 rows", "400 ist knausrig. Nimm 900 Zeilen"])
def test_a_judgement_on_what_the_plan_has_keeps_no_change_of_it_back(tmp_path: Path, said: str) -> None:
    screen, steps = plan_after(tmp_path, WRITES, said)
    assert steps["generate"]["rows"] == 900 and (steps["train"]["lora_rank"], steps["train"]["epochs"]) == (16, 3.0)
    assert "could not place" not in screen


@pytest.mark.parametrize(
    "said",
    [
        "drop the last step, I want no port open in here",
        "quita el último paso, aquí no quiero puertos abiertos",
        "no deploy then, the server here is for the pupils and must not listen to anyone",
    ],
)
def test_why_a_step_is_left_out_names_its_settings_and_keeps_nothing_back(tmp_path: Path, said: str) -> None:
    _, steps = plan_after(tmp_path, OPEN, said)
    assert "deploy" not in steps and "quantize" in steps


def test_a_number_asked_about_by_itself_is_that_of_the_plan(tmp_path: Path) -> None:
    screen, steps = plan_after(tmp_path, OPEN, "and what does 16 mean here?")
    assert "train lora_rank is 16" in screen and steps["train"]["lora_rank"] == 16


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("it must not take more than five minutes", "does not stay within that: fewer epochs"),
        ("no more than 3 GB of memory please", "does not stay within that: a smaller base"),
        ("it may take up to two hours", "stays within that"),
    ],
)
def test_a_time_or_a_memory_that_the_plan_is_held_to_changes_nothing_and_is_answered(
    tmp_path: Path, said: str, told: str
) -> None:
    screen, steps = plan_after(tmp_path, OPEN, said)
    assert told in screen and steps["train"]["lora_rank"] == 16 and steps["train"]["epochs"] == 3.0, screen


@pytest.mark.parametrize("said", ["what's the slowest part of it?", "welcher Schritt dauert am längsten?"])
def test_which_step_of_the_plan_takes_longest_is_told_and_no_limit_is_made_of_it(tmp_path: Path, said: str) -> None:
    screen, _ = plan_after(tmp_path, OPEN, said)
    assert "Most of it is train" in screen and "within" not in screen and "total" not in screen, screen


@pytest.mark.parametrize(
    "said", ["what does the plan do differently from r1?", "blorp the double rank then, is it double?"]
)
def test_how_long_the_plan_trains_is_told_beside_what_the_training_before_took(tmp_path: Path, said: str) -> None:
    screen, _ = plan_after(tmp_path, OPEN, said)
    assert re.search(r"Its training takes about .*, that of r1 took 2 min 32 s", screen), screen


@pytest.mark.parametrize("said", ["how many hours is that all together?", "show me the plan again"])
def test_what_the_plan_takes_is_told_step_by_step(tmp_path: Path, said: str) -> None:
    screen, _ = plan_after(tmp_path, OPEN, said)
    assert "total" in screen and "within" not in screen, screen


def test_a_limit_beside_a_change_is_answered_with_it(tmp_path: Path) -> None:
    screen, steps = plan_after(tmp_path, OPEN, "rank 8, and keep it under 9 GB")
    assert steps["train"]["lora_rank"] == 8 and "9.0 GiB: the plan takes about" in screen


def test_rows_of_a_run_that_is_named_are_taken_whatever_the_verb(tmp_path: Path) -> None:
    screen, steps = plan_after(tmp_path, WRITES, "lieber gleich die Zeilen von r1, neue brauchen wir keine")
    assert steps["generate"]["rows"] == 0 and "rows that r1 kept" in screen


@pytest.mark.parametrize(
    ("said", "rank", "epochs"),
    [("train r1 once more with r2's epochs", 16, 2.0), ("train again in r1 with the rank of r2", 8, 3.0)],
)
def test_an_order_takes_the_setting_of_another_run_that_it_names(
    tmp_path: Path, said: str, rank: int, epochs: float
) -> None:
    state = "at least two finished runs r1 and r2 with different settings, both tested"
    with home_of_state(tmp_path / "home", state), shell_in(tmp_path / "home", [], None) as shell:
        shell.type(said)
        newest = shell.store.priced_steps("r1")[-1]
        assert newest.stage == "train" and newest.request["lora_rank"] == rank and newest.request["epochs"] == epochs
