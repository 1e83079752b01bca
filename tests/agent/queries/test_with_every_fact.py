"""An answer of the right kind has the fact that people need with it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.driver.states import make_state
from tests.driver.stranger_states import home_of_state
from tests.fixtures.tables import table
from tunesmith.agent.queries.answer import Answer, Context, shortened
from tunesmith.agent.queries.registry import REQUESTS, answer
from tunesmith.memory.errors import NotFound
from tunesmith.memory.store import Store
from tunesmith.tools.models.model_names import named_model
from tunesmith.tools.pipeline.workspace import Workspace

LESS = "r2 is tested and only partly learned"


def told(store: Store, kind: str, **given: Any) -> Answer:
    context = Context(Workspace(store, "/bin/true", lambda event, **data: None), store.newest_run())
    return answer(REQUESTS[kind].model_validate(given), context)


def text(store: Store, kind: str, **given: Any) -> str:
    return "\n".join(told(store, kind, **given).lines)


def in_state(home: Path, state: str, kind: str, **given: Any) -> str:
    with home_of_state(home, state):
        return text(Store(home), kind, **given)


@pytest.mark.heavy
def test_the_way_to_learned_is_told_with_the_difference(tmp_path: Path) -> None:
    assert "learned takes 48 of 60, 28 more" in in_state(tmp_path / "less", LESS, "result", run="r2")
    assert "Learned takes 48 of 60, 9 more are right." in in_state(tmp_path / "one", "one finished run", "result")


@pytest.mark.heavy
def test_a_diagnosis_begins_with_what_falls_short_and_is_not_cut_within_a_clause(tmp_path: Path) -> None:
    with home_of_state(tmp_path / "home", LESS):
        lines = told(Store(tmp_path / "home"), "findings", about="why", run="r2").lines
    assert lines[0].startswith("r2: The adapter model: partly learned: 20 of 60")
    assert lines[1].startswith("Its adapter model fails 40 of 60 target cases;")
    assert any("may have forgotten" in line for line in lines[2:]) and not any("…" in line for line in lines)


def test_a_block_that_the_test_calls_worse_comes_before_what_was_partly_learned(tmp_path: Path) -> None:
    worse = "UPDATE eval_results SET passed = 0 WHERE run = 'r2' AND block = 'general' AND arm = ?"
    with home_of_state(tmp_path / "home", LESS):
        store = Store(tmp_path / "home")
        with store.write() as conn:
            conn.execute(worse, ("adapter",))
        first = told(store, "findings", about="next", run="r2").lines[0]
    assert "not learned: general got worse: 32 → 0 of 33" in first, first


def test_what_was_merged_and_not_tested_is_said_to_be_unknown(tmp_path: Path) -> None:
    store = make_state(tmp_path / "home", "merged")[0]
    reply = told(store, "compare", arm="merged", other_arm="adapter")
    assert "was not tested, so whether something broke on the way to it is not known" in reply.lines[0]
    assert "“Evaluate the merged model” tells: about " in reply.lines[0]
    assert [(one.stage, one.fields) for one in reply.proposals] == [("evaluate", {"arm": "merged"})]
    with pytest.raises(NotFound, match="cannot compare"):
        told(store, "compare", arm="quantized", other_arm="base")  # it is not there: nothing could be tested
    store.close()


def test_whether_something_is_there_is_answered_with_yes_or_no_first(tmp_path: Path) -> None:
    store = make_state(tmp_path / "home", "merged")[0]
    with pytest.raises(NotFound, match=r"^No: r1 has no quantized; .* Quantized it would take about"):
        told(store, "artifact", made="quantized")
    store.close()


def test_a_release_is_told_with_its_path_and_how_it_is_loaded(tmp_path: Path) -> None:
    with home_of_state(tmp_path / "home", "r1 was released"):
        store = Store(tmp_path / "home")
        for given in ({}, {"made": "release"}, {"made": "release", "about": "path"}):
            said = text(store, "artifact", **given)
            assert "/r1/s14/release; for another computer copy" in said and "`ollama create NAME -f Modelfile`" in said
        store.artifacts("r1", "release")[-1].path.joinpath("model-Q8_0.gguf").unlink()
        store.artifacts("r1", "release")[-1].path.rmdir()
        assert "ollama" not in text(store, "artifact", made="release"), "what is gone is not loaded"


def test_where_no_label_can_be_mixed_up_the_checks_that_fail_are_counted(tmp_path: Path) -> None:
    said = in_state(
        tmp_path / "home", "r1 is finished and its tuned model fails more than five open cases", "confusion"
    )
    assert "have no labels to mix up; by check:" in said and said.endswith("fail: 9 by is-json."), said


@pytest.mark.heavy
def test_a_model_that_is_named_for_a_card_can_be_trained_and_measured_and_served_there(tmp_path: Path) -> None:
    store = Store(tmp_path / "home")
    lines = told(store, "fits", about="largest", card="10").lines
    assert lines[1].strip() == "training, measuring and serving: up to Llama-3.1-8B"
    [training] = [line for line in lines if line.strip().startswith("training alone")]
    assert re.search(r"up to gemma-2-9b .*; it could not be measured$", training), training
    assert lines[-1] == "These are sums; nothing of it was confirmed on a card of 10 GB."
    assert "But it could not be measured there." in text(store, "fits", model="gemma-2-9b", card="10",
                                                                     work="train")  # fmt: skip
    assert "But it could not" not in text(store, "fits", model="Qwen3-4B", card="10", work="train")
    here = text(store, "fits", about="largest")
    assert "of disk free." in here and "confirmed" not in here
    store.close()


@pytest.mark.heavy
def test_no_shape_is_made_up_for_a_size(tmp_path: Path) -> None:
    store = Store(tmp_path / "home")
    known = text(store, "fits", model="llama 405b", card="3060", work="train")
    assert "405.85 billion parameters, 126 layers" in known and "experts" not in known
    unknown = text(store, "fits", model="nobody-300b", card="3060", work="train")
    assert "its own is not known here" in unknown and "layers" not in unknown and "experts" not in unknown
    model = named_model("nobody-300b")
    assert model is not None and not model.shape.experts and 0.95 < model.parameters / 3e11 < 1.05
    store.close()


def test_a_block_without_results_is_named_in_a_whole_sentence(tmp_path: Path) -> None:
    said = in_state(tmp_path / "home", "one finished run", "result", block="adversarial")
    assert said.startswith("r1 has no results on the adversarial block; measured are")


def test_a_sentence_is_shortened_at_a_clause() -> None:
    assert shortened("One is so; two is so; three is longer than what there is room for", 40) == "One is so; two is so."
    assert shortened("short", 40) == "short"
    assert shortened("one word after another without any mark at all", 20).endswith("…")


@table(
    ("model", "cards", "says"),
    [
        ("7b", 2, "the 2 together have 46.8 GiB, which would hold by size alone"),
        ("70b", 2, "the 2 together have 46.8 GiB, which would hold"),
        ("70b", 1, ""),
        ("405b", 2, "the 2 together have 46.8 GiB, which would hold none of it either"),
    ],
)
def test_of_several_cards_is_told_what_they_share_and_that_training_splits_no_model(
    tmp_path: Path, model: str, cards: int, says: str
) -> None:
    shown = text(Store(tmp_path / f"{model}-{cards}"), "fits", model=model, card="24", cards=cards)
    assert ("each holds the whole model" in shown) == (cards > 1), shown
    assert says in shown and ("the 2 together" in shown) == bool(says), shown


@table(
    ("state", "kind", "given", "fact"),
    [
        (LESS, "result", {"run": "r2", "block": "target"}, "learned takes 48 of 60, 28 more"),
        (LESS, "findings", {"run": "r2"}, "Its adapter model fails 40 of 60 target cases; "),
        ("one finished run r1", "rows", {"about": "length"}, "none has more than 23 words"),
        ("r1 was released", "artifact", {"made": "release"}, "Its tokenizer is in the GGUF."),
    ],
)  # fmt: skip
def test_the_fact_that_people_ask_for_next_is_there(
    tmp_path: Path, state: str, kind: str, given: dict[str, str], fact: str
) -> None:
    assert fact in (said := in_state(tmp_path / "home", state, kind, **given)), said
