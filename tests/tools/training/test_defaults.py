"""Settings come from the model and the rows, with a reason each; a request's own goes before them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.tables import table
from tunesmith.memory.records import Artifact
from tunesmith.tools.export import quantize
from tunesmith.tools.export.quantize import QuantizeRequest
from tunesmith.tools.models.bundled import QWEN_CODER, QWEN_CODER_SMALL, BundledModel
from tunesmith.tools.training.choices import checkpoint_steps, rehearsal_lines
from tunesmith.tools.training.defaults import rehearsal_wanted, training_defaults
from tunesmith.tools.training.train import TrainRequest, resolved

SMOLLM = {
    "model_type": "llama", "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
    "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49152, "tie_word_embeddings": True,
}  # fmt: skip
QWEN = {
    "model_type": "qwen2", "hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28,
    "num_attention_heads": 12, "num_key_value_heads": 2, "vocab_size": 151936, "tie_word_embeddings": True,
}  # fmt: skip
LLAMA_8B = {
    "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256,
}  # fmt: skip


def chosen(config: dict[str, Any], rows: int, **more: Any) -> dict[str, Any]:
    return dict(training_defaults(config, rows=rows, tokens_per_row=100, **{"batch_size": 8} | more).values)


def test_the_rate_follows_the_published_rule_and_stays_within_the_sweep() -> None:
    assert chosen(SMOLLM, 800)["learning_rate"] == 1e-3  # 1.3e-3 by the rule, the sweep's highest best is 1e-3
    assert chosen(LLAMA_8B | {"num_hidden_layers": 16}, 2000)["learning_rate"] == 2.9e-4
    assert chosen(QWEN | {"model_type": "granite"}, 2000)["learning_rate"] == 3e-4  # the lower rule, and the hold


@table(("layers", "rate"), [(24, 2.9e-4), (26, 2e-4), (56, 2e-4), (58, 1e-4), (80, 1e-4)])
def test_a_large_base_is_taught_at_the_rates_that_were_published_for_its_size(layers: int, rate: float) -> None:
    """Of 6.3 and 6.7 B parameters, of 13.3 and 13.7, and of 18."""
    assert chosen(LLAMA_8B | {"num_hidden_layers": layers}, 2000)["learning_rate"] == rate


def test_a_short_run_is_hotter_on_a_tiny_model_alone() -> None:
    tiny = SMOLLM | {"model_type": "qwen2"}
    assert [chosen(tiny, rows)["learning_rate"] for rows in (800, 200)] == [5.5e-4, 8.3e-4]
    assert chosen(LLAMA_8B, 200)["learning_rate"] == 2e-4


@pytest.mark.parametrize("model", [QWEN_CODER_SMALL, QWEN_CODER])
@pytest.mark.parametrize("rows", [30, 126, 600])
def test_a_model_that_is_not_tiny_is_held_closer_to_its_base(model: BundledModel, rows: int) -> None:
    found = chosen(dict(model.config), rows, batch_size=0)
    assert (found["learning_rate"], found["rehearsal_weight"], found["forms"]) == (3e-4, 3.0, 1)
    assert found["max_kl"] == 0.05 < chosen(SMOLLM, rows)["max_kl"]
    assert found["epochs"] * rows <= 960, "more rows than one behaviour needs"


@table(
    ("config", "rows", "epochs"),
    [(SMOLLM, 220, 3.0), (SMOLLM, 800, 1.2), (SMOLLM, 5000, 1.0), (LLAMA_8B, 220, 3.0), (LLAMA_8B, 800, 1.2)],
)
def test_epochs_make_as_many_steps_as_a_behaviour_needs(config: dict[str, Any], rows: int, epochs: float) -> None:
    assert chosen(config, rows)["epochs"] == epochs


@table(
    ("rows", "cheap", "epochs"),
    [
        (100, 10**6, 3.0),
        (846, 10**6, 3.0),
        (3000, 10**6, 3.0),
        (6000, 10**6, 1.5),
        (20_000, 10**6, 1.0),
        (1000, 2500, 2.5),
        (1000, 0, 1.0),
    ],
)
def test_rows_are_seen_three_times_where_that_costs_little(rows: int, cheap: int, epochs: float) -> None:
    assert chosen(LLAMA_8B, rows, cheap_views=cheap)["epochs"] == epochs >= chosen(LLAMA_8B, rows)["epochs"]
    request, reasons = resolved(TrainRequest(), *artifacts(QWEN), cheap_views=10**6)
    assert request.epochs == 3 and "cost this card little" in reasons["epochs"]
    assert resolved(TrainRequest(epochs=1), *artifacts(QWEN), cheap_views=10**6)[0].epochs == 1, "what is typed stands"


@table(
    ("config", "rows", "asked", "batch", "epochs"),
    [
        (SMOLLM, 184, {}, 2, 3.0),
        (SMOLLM, 200, {}, 4, 3.0),
        (SMOLLM, 800, {}, 4, 1.2),
        (SMOLLM, 1000, {}, 8, 1.0),
        (SMOLLM, 400, {"epochs": 2.0}, 4, 2.0),
        (LLAMA_8B, 184, {}, 2, 3.0),
        (LLAMA_8B, 184, {"batch_size": 8}, 8, 3.0),
    ],
)
def test_few_rows_get_small_steps_and_are_seen_as_often(
    config: dict[str, Any], rows: int, asked: dict[str, Any], batch: int, epochs: float
) -> None:
    found = chosen(config, rows, **{"batch_size": 0} | asked)
    assert (found["batch_size"], found["epochs"]) == (batch, epochs)


def test_the_rank_grows_with_what_there_is_to_hold() -> None:
    assert [chosen(SMOLLM, rows)["lora_rank"] for rows in (200, 20_000, 60_000, 10**7)] == [16, 16, 32, 64]
    assert chosen(LLAMA_8B, 200_000)["lora_rank"] == 16


def artifacts(config: dict[str, Any]) -> tuple[Artifact, Artifact]:
    base = Artifact("a1", "r1", "s1", "base", Path(), "", 1, (), {"config": config})
    return base, Artifact("a2", "r1", "s2", "dataset", Path(), "", 1, (), {"train_rows": 800, "tokens_per_row": 100})


def test_what_the_user_says_goes_before_and_has_no_reason_of_ours() -> None:
    request, reasons = resolved(TrainRequest(lora_rank=8, learning_rate=2e-4), *artifacts(SMOLLM))
    assert (request.lora_rank, request.lora_alpha, request.learning_rate, request.epochs) == (8, 16, 2e-4, 1.2)
    assert set(reasons) == {"lora_alpha", "epochs", "batch_size", "rehearsal_weight", "max_kl"}


@table(("asked", "weight"), [(0, 0.0), (0.5, 0.5), ("auto", 1.0), (None, 1.0)])
def test_no_rehearsal_is_another_wish_than_as_much_as_the_model_needs(asked: object, weight: float) -> None:
    request = TrainRequest.model_validate({} if asked is None else {"rehearsal_weight": asked})
    assert resolved(request, *artifacts(SMOLLM))[0].rehearsal_weight == weight
    stored = request.model_dump(mode="json")
    assert TrainRequest.model_validate(stored) == request
    assert stored["rehearsal_weight"] == ("auto" if asked in (None, "auto") else asked)


def test_a_negative_weight_is_refused() -> None:
    with pytest.raises(ValueError, match="0 or more, or auto"):
        TrainRequest(rehearsal_weight=-0.5)


def test_every_field_that_is_chosen_says_why() -> None:
    request, reasons = resolved(TrainRequest(), *artifacts(QWEN))
    always = {"lora_rank", "lora_alpha", "learning_rate", "epochs", "batch_size", "rehearsal_weight", "max_kl"}
    assert set(reasons) == always and request.value_weight == 1
    assert "rule 5e-5" in reasons["learning_rate"] and "rank 16 has" in reasons["lora_rank"]
    assert resolved(request, *artifacts(QWEN)) == (request, {})  # a plan that is priced again stays what it was
    base, dataset = artifacts(QWEN)
    dataset.meta["valued_rows"] = 500
    weighted, reasons = resolved(TrainRequest(), base, dataset)
    assert set(reasons) == always | {"value_weight"} and weighted.value_weight == 6
    assert reasons["value_weight"].startswith("500 of 800 rows")
    assert resolved(TrainRequest(value_weight=1), base, dataset)[0].value_weight == 1


@pytest.mark.parametrize("own", [1, 36, 60, 99, 120, 150, 199, 400, 900, 1500])
@pytest.mark.parametrize("asked", [0, 2, 4, 8])
def test_rehearsal_is_enough_for_one_row_of_it_in_every_step_and_no_more(own: int, asked: int) -> None:
    def in_a_step(held: int) -> float:
        rows = own + held
        return held / rows * (asked or chosen(QWEN, rows, batch_size=0)["batch_size"])

    wanted = rehearsal_wanted(own, asked)
    assert in_a_step(wanted) >= 1 > in_a_step(wanted - 1)


@table(
    ("meta", "said"),
    [
        ({}, ()),
        ({"held_rows": 300}, ("300 of the 800 rows hold it to its base, 1.5 in a step",)),
        (
            {"held_rows": 80},
            ("80 of the 800 rows hold it to its base, 0.4 in a step; 240 would put one into every step",),
        ),
        (
            {"held_rows": 0},
            ("0 of the 800 rows hold it to its base, 0.0 in a step; 267 would put one into every step",),
        ),
    ],
)
def test_a_plan_tells_how_much_holds_the_model_to_its_base(meta: dict[str, int], said: tuple[str, ...]) -> None:
    dataset = artifacts(QWEN)[1]
    dataset.meta.update(meta)
    assert rehearsal_lines(dataset, 4) == said


def test_rows_with_other_forms_are_seen_in_more_of_them_by_a_tiny_model_and_priced_so() -> None:
    base, dataset = artifacts(SMOLLM)
    dataset.meta["varied_rows"] = 500
    request, reasons = resolved(TrainRequest(), base, dataset)
    assert request.forms == 3 and "tiny model" in reasons["forms"]
    large, data = artifacts(LLAMA_8B)
    data.meta["varied_rows"] = 500
    assert resolved(TrainRequest(), large, data)[0].forms == 1
    assert resolved(TrainRequest(forms=2), base, dataset)[0].forms == 2


@table(
    ("parameters", "act", "asked", "scheme", "keep"),
    [
        (135_000_000, "silu", {}, "W8A8", ("down_proj",)),
        (135_000_000, "relu", {}, "W8A8", ()),
        (8_000_000_000, "silu", {}, "W4A16", ()),
        (135_000_000, "silu", {"scheme": "W4A16"}, "W4A16", ()),
        (8_000_000_000, "silu", {"scheme": "W8A8", "keep": ("o_proj", "auto")}, "W8A8", ("o_proj", "down_proj")),
        (135_000_000, "silu", {"keep": ()}, "W8A8", ()),
    ],
)
def test_the_scheme_goes_by_the_size_and_what_stays_by_the_scheme(
    parameters: int, act: str, asked: dict[str, Any], scheme: str, keep: tuple[str, ...]
) -> None:
    meta = {"config": SMOLLM | {"hidden_act": act}, "parameters": parameters}
    merged = Artifact("a3", "r1", "s3", "merged", Path(), "", 1, (), meta)
    request, reasons = quantize.resolved(QuantizeRequest(**asked), merged)
    assert (request.scheme, request.keep) == (scheme, keep)
    told = {name for name in ("scheme", "keep") if name not in asked or "auto" in asked[name]}
    assert set(reasons) == told | {"calibration_tokens"}


@table(
    ("validate", "steps", "batch", "every"),
    [
        (20, 276, 2, 30),
        (64, 276, 2, 69),
        (64, 1200, 8, 24),
        (4, 240, 4, 10),
        (4, 12, 2, 3),
        (4, 1, 2, 1),
        (0, 60, 8, 10),
    ],
)
def test_validation_takes_a_ninth_of_the_training_and_a_short_one_has_four(
    validate: int, steps: int, batch: int, every: int
) -> None:
    dataset = artifacts(QWEN)[1]
    dataset.meta["valid_rows"] = validate
    found, why = checkpoint_steps(dataset, steps, batch)
    assert found == every and f"{validate} rows validate {math.ceil(steps / every)} checkpoints" in why
    assert every <= math.ceil(steps / 4) and (
        every in (10, math.ceil(steps / 4)) or 9 * validate <= 3 * every * batch + 9
    )
