"""What fits is what the plans say, at exactly the work and the bits that were asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.driver.states import make_state
from tests.fixtures.asking import asked
from tests.fixtures.tables import table
from tunesmith.memory.errors import BadInput, NotFound
from tunesmith.memory.store import Store
from tunesmith.tools.models.bundled import BUNDLED
from tunesmith.tools.models.model_names import named_model


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("fits") / "home")


@table(
    ("given", "fits"),
    [
        ({"model": "7b", "card": "24", "work": "train"}, {16: True, 4: True}),
        ({"model": "14b", "card": "4090", "work": "train"}, {16: False, 4: True}),
        ({"model": "70b", "ram_gib": 16, "work": "train"}, {16: False, 4: False}),
        ({"model": "405b", "ram_gib": 4096, "work": "quantize"}, {4: True}),  # whatever the disk here
        ({"model": "70b", "card": "24", "cards": 2, "work": "serve"}, {16: False, 8: False, 4: True}),
        ({"model": "70b", "card": "2x24", "work": "serve"}, {16: False, 8: False, 4: True}),
        ({"model": "70b", "card": "24", "work": "serve"}, {16: False, 8: False, 4: False}),
    ],
)
def test_each_precision_of_a_work_fits_or_does_not(store: Store, given: dict[str, Any], fits: dict[int, bool]) -> None:
    found = asked(store, "fits", **given)
    assert {one["bits"]: one["fits"] for one in found.facts} == fits
    assert found.of["machine"] == "another, not measured"
    assert all(bool(one["instead"]) is not one["fits"] for one in found.facts), "what does not fit says what would"


def test_a_task_is_told_at_exactly_the_bits_that_were_named(store: Store) -> None:
    [plain] = asked(store, "fits", model="14b", card="24", work="train", bits=16).facts
    assert plain["bits"] == 16 and plain["fits"] is False and "load_in_4bit=true" in str(plain["instead"])
    [eight] = asked(store, "fits", model="7b", card="24", work="quantize", bits=8).facts
    assert eight["bits"] == 8
    with pytest.raises(BadInput, match="merge is done at 16 bits, not at 8"):
        asked(store, "fits", model="7b", card="24", work="merge", bits=8)


def test_of_no_work_every_kind_of_it_is_told_and_the_files(store: Store) -> None:
    found = asked(store, "fits", model="7b", card="48")
    *tasks, files = found.facts
    assert {one["work"] for one in tasks} == {"train", "measure", "merge", "quantize", "serve"}
    assert all(one["peak_vram_bytes"] or one["peak_ram_bytes"] for one in tasks)
    parameters = found.of["parameters"]
    assert files["files_at_16_bits_bytes"] == 2 * parameters  # type: ignore[operator]
    assert files["whole_fine_tune_fits_the_disk"] is None, "of another machine no disk is known"
    assert found.says[0].startswith("a plan trains at 16 bits")


def test_what_is_free_now_is_told_of_this_machine_alone(store: Store) -> None:
    [here] = asked(store, "fits", model="0.5b", work="merge").facts
    [there] = asked(store, "fits", model="0.5b", work="merge", card="24").facts
    assert here["fits_now"] in (True, False) and there["fits_now"] is None


def test_without_a_card_the_smallest_that_would_do_is_told(store: Store) -> None:
    found = asked(store, "fits", model="7b", work="train")
    if found.of["gpu"] != "none":
        pytest.skip("this machine has a card")
    assert {one["bits"]: one["least_card_vram_bytes"] for one in found.facts} == {16: 24 << 30, 4: 12 << 30}


@pytest.mark.heavy
def test_the_largest_that_fits_can_be_trained_and_measured_and_served(store: Store) -> None:
    whole, trained = asked(store, "fits", card="10"), asked(store, "fits", card="10", work="train")
    assert whole.of["largest_that_fits"] == "Llama-3.1-8B" and trained.of["largest_that_fits"] == "gemma-2-9b"
    by_name = {one["model"]: one for one in whole.facts}
    assert by_name["gemma-2-9b"]["lacks"] == ["measure"] and by_name["Llama-3.1-8B"]["lacks"] == []
    assert len(whole.facts) + whole.left_out["usual models"] == 19


def test_the_base_of_the_run_that_is_talked_about_comes_before_the_usual_ones(tmp_path: Path) -> None:
    store, _ = make_state(tmp_path / "home", "dataset")
    first = asked(store, "fits", card="24").facts[0]
    assert str(first["model"]).endswith(" of r1") and first["parameters"] == 134_515_008
    store.close()


def test_no_shape_is_made_up_for_a_size(store: Store) -> None:
    known = asked(store, "fits", model="llama 405b", card="3060", work="train").of
    assert known["layers"] == 126 and "experts" not in known
    unknown = asked(store, "fits", model="nobody-300b", card="3060", work="train").of
    assert unknown["shape"] == "usual of its size" and not {"layers", "experts"} & unknown.keys()
    model = named_model("nobody-300b")
    assert model is not None and not model.shape.experts and 0.95 < model.parameters / 3e11 < 1.05


def test_every_packaged_model_has_an_answer_by_the_name_that_the_base_tool_takes(store: Store) -> None:
    for name in BUNDLED:
        assert asked(store, "fits", model=name, card="24", work="serve").of["layers"]


@table(
    ("given", "says"),
    [
        ({"model": "zzz"}, "No size of zzz is known; say one, such as 7b, or one of SmolLM2-135M"),
        ({"model": "qwen3"}, "which qwen3"),
        ({"cards": 2}, "read_fits takes no cards"),
        ({"card": "9999x"}, "no card is known as"),
    ],
)
def test_a_model_or_a_card_that_nobody_knows_is_said(store: Store, given: dict[str, Any], says: str) -> None:
    with pytest.raises((NotFound, BadInput), match=says):
        asked(store, "fits", **given)
