"""At a price that waits, and behind one that was only told: what is asked is answered, and only a yes agrees."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.agent.commands.test_approvals import BEGIN_WITH_YES, NOS
from tests.agent.driver.test_said import Alone
from tests.fixtures.stored_runs import finished_run
from tests.fixtures.tables import table
from tunesmith.agent.commands.approvals import read_answer
from tunesmith.agent.driver.at_price import Waits, as_answer, aside
from tunesmith.agent.driver.by_code import decide
from tunesmith.agent.driver.turn_deps import Call
from tunesmith.agent.queries.answer import Proposed
from tunesmith.agent.queries.prices import PriceQuery
from tunesmith.tools.core.stage import GIB, Estimate, Plan


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Alone]:
    finished_run(tmp_path / "home")[0].close()
    one = Alone(tmp_path / "home")
    yield one
    one.chat.close()


@pytest.mark.heavy
@table(
    ("said", "holds"),
    [
        ("why does it take that long", "75 steps of 8 rows"), ("25 min?? warum so lang", "75 steps of 8 rows"),
        ("por que tarda tanto", "75 steps of 8 rows"), ("does it cost money", "costs no money"),
        ("ist das kostenlos?", "costs no money"), ("¿cuesta dinero?", "costs no money"),
        ("can i stop it half way", "from its newest checkpoint"),
        ("posso fermarlo a metà?", "from its newest checkpoint"),
        ("puis-je l'arrêter en cours de route ?", "from its newest checkpoint"),
        ("lower the rank first", "lora_rank is 8 in this price"),
        ("erst den rang runter", "lora_rank is 8 in this price"),
        ("yeah whatever but lower the rank first", "lora_rank=4 or lora_rank=16"),
        ("sube las épocas primero", "epochs is 3.0 in this price"), ("yes but more epochs", "epochs=1.5 or epochs=6.0"),
        ("explain it in plain words", "Fine-tuning is further training"),
        ("no, go ahead", "asked once more"), ("nein, mach ruhig", "asked once more"),
        ("how blue is the whale in the morning?", "costs no money"),
        ("how blue is the whale in the morning?", "from its newest checkpoint"),
        ("how blue is the whale in the morning?", "epochs=1.5 would take about half as long"),
        ("so lang? ginge das auch schneller?", "epochs=1.5 would take about half as long"),
        ("let me see one of the rows before that", "rows of r1"),
    ],
)  # fmt: skip
def test_at_a_price_what_is_asked_of_it_is_answered_and_nothing_is_decided(alone: Alone, said: str, holds: str) -> None:
    work = "What takes the time: 75 steps of 8 rows."
    waits = Waits("train", "train: about 6 min.", work, {"lora_rank": 8, "epochs": 3.0})
    assert holds in aside(alone.deps, said, waits)
    assert read_answer(said, by="t", stage="train") is None
    assert as_answer(said, Waits("train")) == ""


@pytest.mark.heavy
@table("said", ["can i keep working on this machine meanwhile?", "Kann ich währenddessen am PC spielen?"])
def test_who_asks_for_room_beside_it_is_told_what_it_leaves_free(alone: Alone, said: str) -> None:
    text = aside(alone.deps, said, Waits.of(PRICED))
    assert "Of 8.0 GiB of memory that is free it needs 2.0 GiB (25.0%), leaving 6.0 GiB." in text
    assert "It uses no graphics card." in text and "go on" in text and Waits.of(PRICED).price in text


@pytest.mark.heavy
@table("said", ["and in hours?", "was ist das in GB?"])
def test_at_a_price_a_question_for_other_units_hears_the_price_and_is_no_answer(alone: Alone, said: str) -> None:
    price = "train: about 6 min 26 s; RAM 2.3 GiB needed."
    assert price in aside(alone.deps, said, Waits("train", price, "", {}))
    assert read_answer(said, by="t", stage="train") is None


@table("said", ["yes", "k go", "rank 4", "no", "rank 8 and two epochs", "not today", "gut, mach"])
def test_an_answer_and_a_value_are_no_question_at_a_price(alone: Alone, said: str) -> None:
    assert aside(alone.deps, said, Waits("train", "train: about 6 min.", "", {"lora_rank": 8})) == ""


PRICED = Plan(
    stage="train", run="r1", summary="train", steps=("one",),
    request={"lora_rank": 8, "epochs": 4.0, "learning_rate": 5e-4},
    estimate=Estimate(seconds=1500, most_seconds=3000, basis="x", peak_ram_bytes=2 * GIB, disk_bytes=GIB),
    free_ram_bytes=8 * GIB, free_disk_bytes=100 * GIB,
)  # fmt: skip
WRITING = PRICED.model_copy(update={"stage": "generate", "request": {"rows": 600, "writer": "model"}})
COUNTER_OFFERS = {
    "nein, nimm rang 16": "lora_rank=16",
    "nope, make it rank 4 please": "lora_rank=4",
    "twice the rank": "lora_rank=16",
    "non, la moitié des époques": "epochs=2.0",
    "nope, make it one epoch less please": "epochs=3.0",
    "nein, nimm zwei Epochen weniger": "epochs=2.0",
    "nope, make it four epochs less please": "",
    "no, rank 16 is overkill": "",
    "no rank 16": "",
    "never mind the rank": "",
    "no, 12": "",
    "would rank 4 do?": "",
}


@table("said", COUNTER_OFFERS)
def test_a_counter_offer_behind_a_no_or_a_multiple_is_a_price_with_other_values(said: str) -> None:
    assert as_answer(said, Waits.of(PRICED)) == COUNTER_OFFERS[said]


@table(
    "said",
    [
        "it will break. wait, ok", "we should not. scratch that. ok", "my disk is nearly full. scratch that, ok",
        "I'm not sure about this. no wait. yes", "ist das viel! moment mal, mach ruhig", "no. wait, yes then",
        "rank 4. no wait, go ahead", "he told me no wait, go ahead", "is that much? no wait, should I go ahead?",
    ],
)  # fmt: skip
def test_a_yes_behind_what_takes_something_back_is_asked_about_once_more(said: str) -> None:
    answer = read_answer(said, by="terminal", stage="train")
    assert as_answer(said, Waits.of(PRICED)) != "yes" and not (answer and answer.yes)


OF_ROWS = {"nah, 150": "rows=150", "take 90 instead": "rows=90", "50": "rows=50", "half as many please": "rows=300"}


@table("said", OF_ROWS)
def test_a_bare_number_is_meant_for_the_one_number_that_people_give_to_a_step(said: str) -> None:
    assert as_answer(said, Waits.of(WRITING)) == OF_ROWS[said]


@table("said", ["I'd prefer not to", "rather not, thanks", "wolałbym nie"])
def test_words_that_are_certainly_read_as_a_no_are_one_with_their_words(said: str) -> None:
    answer = read_answer(as_answer(said, Waits.of(PRICED)), by="t", stage="train")
    assert answer is not None and not answer.yes and said in answer.reason


@table("said", [*NOS, *BEGIN_WITH_YES])
def test_no_other_words_are_made_an_answer(said: str) -> None:
    text = as_answer(said, Waits.of(PRICED))
    answer = read_answer(text, by="t", stage="train")
    assert text == "" or "=" in text or (answer is not None and not answer.yes)


@pytest.mark.heavy
@table(
    ("said", "holds"),
    [
        ("if it stays under an hour", "within 1 h 00 min, also at its longest"),
        ("nur falls es keine halbe stunde dauert", "within 30 min 00 s, though it may take 50 min 00 s"),
        ("ok if it is done in 10 minutes", "Near it would be epochs=1.6"),
        ("ok unless it needs more than 1 GB of memory", "It needs more than 1.0 GiB and leaves no less"),
        ("yes if that leaves me 20 GB of the disk", "It needs no more than 20.0 GiB and leaves no less"),
        ("only if 7 GB of memory stay free", "It needs no more than 7.0 GiB and leaves less"),
        ("sure, provided the disk can take it", "needs 1.0 GiB (1.0%)"),
        ("yes, at 7 in the evening", "nothing starts without a yes, or by the clock"),
        ("yes, and no merging after that", "starts train alone"),
        ("take 250 rows", "“generate rows=250” prices generate"),
        ("no, 12", "lora_rank=12 or epochs=12"),
        ("no, tell me how many the base passed", "base passes"),
        ("hold on. i am torn. which one is better, r1 or the base?", "base"),
        ("no. wait, yes then", "asked once more"),
        ("no wait, I want to see first what the merged one can do", "merged passes"),
        ("non attends, je veux d'abord voir le modèle fusionné", "merged passes"),
    ],
)  # fmt: skip
def test_a_condition_is_held_to_the_price_and_what_stands_behind_a_no_is_heard(
    alone: Alone, said: str, holds: str
) -> None:
    assert holds in aside(alone.deps, said, Waits.of(PRICED)) and as_answer(said, Waits.of(PRICED)) == ""


@table("said", [one for one in NOS if "?" not in one])
def test_a_no_with_its_reason_is_decided_and_no_question(alone: Alone, said: str) -> None:
    assert aside(alone.deps, said, Waits.of(PRICED)) == ""


@table(
    "agreed",
    ["ok do it", "ja gut, mach", "dale", "d'accord, vas-y", "va bene, procedi", "manda ver", "doe maar", "dobra"],
)
def test_a_yes_to_a_price_that_was_only_told_shows_it_as_a_question(alone: Alone, agreed: str) -> None:
    alone.deps.last_query, alone.deps.proposals = PriceQuery(stage="quantize"), (Proposed("r1", "quantize", {}),)
    alone.deps.begin_turn(agreed)
    call = decide(alone.deps)
    assert isinstance(call, Call) and call.tool == "quantize"


@table("said", ["ok but later", "no", "do it tomorrow", "ok, and what is that for?"])
def test_no_other_words_ask_about_a_price_that_was_only_told(alone: Alone, said: str) -> None:
    alone.deps.last_query, alone.deps.proposals = PriceQuery(stage="quantize"), (Proposed("r1", "quantize", {}),)
    alone.deps.begin_turn(said)
    assert not isinstance(decide(alone.deps), Call)
