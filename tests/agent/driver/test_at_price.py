"""At a price that waits, and behind one that was only told: what is asked is answered, and only a yes agrees."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.agent.driver.test_said import Alone
from tests.fixtures.stored_runs import finished_run
from tests.fixtures.tables import table
from tunesmith.agent.commands.approvals import read_answer
from tunesmith.agent.driver.at_price import Waits, as_edit, aside
from tunesmith.agent.driver.by_code import decide
from tunesmith.agent.driver.turn_deps import Call
from tunesmith.agent.queries.answer import Proposed
from tunesmith.agent.queries.prices import PriceQuery


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
    ],
)  # fmt: skip
def test_at_a_price_what_is_asked_of_it_is_answered_and_nothing_is_decided(alone: Alone, said: str, holds: str) -> None:
    work = "What takes the time: 75 steps of 8 rows."
    waits = Waits("train", "train: about 6 min.", work, {"lora_rank": 8, "epochs": 3.0})
    assert holds in aside(alone.deps, said, waits)
    assert read_answer(said, by="t", stage="train") is None
    assert as_edit(said, "train") == ""


@pytest.mark.heavy
@table(("said", "holds"), [("and in hours?", "is 0.11 h, 6.4 min"), ("was ist das in GB?", "2.3 GiB is 2.47 GB")])
def test_at_a_price_its_figures_are_told_in_other_units(alone: Alone, said: str, holds: str) -> None:
    assert holds in aside(alone.deps, said, Waits("train", "train: about 6 min 26 s; RAM 2.3 GiB needed.", "", {}))
    assert read_answer(said, by="t", stage="train") is None


@table("said", ["yes", "k go", "rank 4", "no", "rank 8 and two epochs", "not today", "gut, mach"])
def test_an_answer_and_a_value_are_no_question_at_a_price(alone: Alone, said: str) -> None:
    assert aside(alone.deps, said, Waits("train", "train: about 6 min.", "", {"lora_rank": 8})) == ""


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
