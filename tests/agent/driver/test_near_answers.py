"""Words whose right answer is near: what a question names settles which of two things is told, and nothing begins."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.agent.driver.test_at_price import PRICED
from tests.agent.driver.test_parts import screen_of
from tests.agent.driver.test_said import Alone
from tests.driver.states import make_state
from tests.fixtures.tables import table
from tunesmith.agent.driver.at_price import Waits, aside
from tunesmith.agent.driver.unsure import did_you_mean
from tunesmith.agent.words.reading import Reading
from tunesmith.agent.words.slots import amounts, slots_of

UNTESTED = "r1 is trained and merged, nothing tested after the merge"
MERGED = "r1 is trained and merged, not yet quantized"
LESS = "r2 is tested and only partly learned or did not learn"
ONE = "one finished run r1 (base, adapter, merged and quantized tested), nothing running, nothing served"
FAILED = "several runs or steps, at least one of which failed"
RUNNING = "a training step is running now, partly done"


@table(
    ("said", "seconds"),
    [
        ("what is that in hours?", []), ("combien de minutes au total ?", []), ("the whole day through", []),
        ("keep it below an hour", [3600.0]), ("nicht mehr als eine Stunde", [3600.0]), ("en media hora", [1800.0]),
        ("it may take 3 hours", [10800.0]), ("half a day at most", [43200.0]),
    ],
)  # fmt: skip
def test_a_unit_without_a_number_or_an_article_is_no_amount(said: str, seconds: list[float]) -> None:
    assert [most for what, most in amounts(slots_of(said)) if what == "time"] == seconds


@pytest.mark.heavy
@table(("said", "spent"), [("what are these 12 minutes needed for?", True), ("if it stays under an hour", False)])
def test_who_asks_what_the_time_goes_to_hears_that_beside_how_it_stands_to_his_figure(
    tmp_path: Path, said: str, spent: bool
) -> None:
    make_state(tmp_path / "home", "merged")[0].close()
    told = aside(Alone(tmp_path / "home", []).deps, said, Waits.of(PRICED))
    assert ("What takes the time: " in told) == spent and "Its estimate is " in told, told


@pytest.mark.heavy
@table(
    ("state", "said", "shows", "never"),
    [
        (UNTESTED, ("did anybody evaluate the merged one?",), "no results of the merged arm; measured are: arms base",
         "Yes: "),
        (UNTESTED, ("has it been merged already?",), "Yes: merge (s9)", "no results"),
        (UNTESTED, ("ist das gemergte Modell schon fertig?",), "Yes: merge (s9)", "no results"),
        (ONE, ("has the quantized model been evaluated?",), "quantized passes 57 of 60", "Yes: "),
        (UNTESTED, ("was the adapter tested?",), "adapter passes 59 of 60", "Yes: "),
        (RUNNING, ("what is running?", "and the memory?"), "RAM: ", "Nothing is begun"),
        (ONE, ("what would training again cost?", "and the memory?"), "train needs at most", "Peak memory"),
        (FAILED, ("which steps failed?", "and the one before that?"), "train failed after 31 s (s6 of", "begins anew"),
        (FAILED, ("which steps failed?", "what was served before?"), "was deployed (s13)", "train failed after"),
        (LESS, ("what does 'form only' mean?",), "so 28 cases more would be needed", "did not understand"),
        (LESS, ("what does 'lora rank' mean?",), "two matrices", "The claim is"),
        (MERGED, ("e l'unito ce l'abbiamo dunque",), "r1 has its merged model.", "did not understand"),
        (MERGED, ("quantized? nope, right",), "r1 has no quantized model.", "did not understand"),
        (MERGED, ("quantize it to 8 bits, and how much space will that take?",), "The model becomes about 108 MiB",
         "nothing was done"),
        (MERGED, ("Quantize it, and what is running right now?",), "Nothing is running", "(quantized)"),
        (UNTESTED, ("test the merged one. How many target cases did the adapter pass?",), "adapter passes 59 of 60",
         "comes after it"),
        (UNTESTED, ("evaluate the merged model and tell me how it did on general",), "comes after it",
         "adapter passes"),
    ],
)  # fmt: skip
def test_what_words_name_settles_which_near_answer_is_told(
    tmp_path: Path, state: str, said: tuple[str, ...], shows: str, never: str
) -> None:
    screen = " ".join(screen_of(tmp_path, state, *said).split())
    assert shows in screen and never not in screen, screen


@pytest.mark.heavy
@table(("likely", "told"), [(("talk.who", "talk.help", "runs.all"), True), (("talk.who", "talk.help"), False)])
def test_in_an_empty_home_what_may_ask_for_a_record_is_answered_by_there_being_none(
    tmp_path: Path, likely: tuple[str, ...], told: bool
) -> None:
    alone = Alone(tmp_path / "home", [])
    alone.deps.unsure = Reading("", 0.0, False, slots_of("whatever"), likely=likely)
    said = did_you_mean(alone.deps)
    assert "There is no run yet" in said and ("Perhaps this answers it" in said) == told
