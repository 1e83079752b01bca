"""What is offered for words that were not understood: what the run has what it needs for, with what it would take."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.agent.driver.test_said import Alone
from tests.driver.states import make_state, priceable
from tunesmith.agent.driver.unsure import did_you_mean, guessed
from tunesmith.agent.words.reading import Context, read, reader


@pytest.fixture
def merged(tmp_path: Path) -> Alone:
    """At a run that ends with its merged model."""
    store, _ = make_state(tmp_path / "home", "merged and tested")
    priceable(store)
    store.close()
    return Alone(tmp_path / "home", [])


@pytest.mark.heavy
def test_an_offered_step_has_its_price_beside_it(merged: Alone) -> None:
    merged.deps.nearest = (reader().head.offer("do.quantize"), "list all runs")
    said = did_you_mean(merged.deps)
    assert "1 “quantize it” (about " in said and "of memory), 2 “list all runs”?" in said
    merged.deps.nearest = (reader().head.offer("do.train"),)
    assert "(about" not in did_you_mean(merged.deps), "what is done already is offered without a price"


def test_no_step_is_offered_whose_run_lacks_what_it_needs(merged: Alone, monkeypatch: pytest.MonkeyPatch) -> None:
    offers = tuple(reader().head.offer(label) for label in ("do.deploy", "do.quantize", "runs.all", "do.merge"))
    unsure = replace(read("whatever fits", Context()), sure=False, label="remark", request=None, nearest=offers)
    monkeypatch.setattr("tunesmith.agent.driver.by_code.read", lambda *_: unsure)
    said = merged.hears("whatever fits")
    assert "deploy the quantized model" not in said and "1 “quantize it”" in said and "3 “merge it”" in said


def test_no_question_is_offered_that_code_has_no_answer_to() -> None:
    read_as = read("in percent please", Context())
    assert read_as.likely[0] == "again.percent" and read_as.nearest, "it is read as one, and others are offered"
    assert not {label for label in map(reader().head.label_of, read_as.nearest) if label.startswith("again")}


@pytest.mark.heavy
def test_what_is_hardly_read_is_answered_beside_where_things_stand(merged: Alone) -> None:
    asked = replace(read("how long did the training take?"), sure=False)
    for probability, stands in ((0.5, False), (0.35, True)):
        merged.deps.unsure = replace(asked, probability=probability)
        found = guessed(merged.deps)
        assert found is not None and "train took" in found.text and "with little certainty" in found.text
        assert ("Perhaps you ask for this." in found.text) == stands == ("Next in r1" in found.text)
    merged.deps.unsure = replace(asked, probability=0.25)
    assert guessed(merged.deps) is None
