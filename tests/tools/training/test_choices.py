"""What a request leaves open follows from the data set, the base and the processor, and is priced with it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tests.fixtures.planted_gpus import gpu
from tests.fixtures.tables import table
from tunesmith.memory.records import Artifact
from tunesmith.tools.core.machine import Machine, whole_bytes
from tunesmith.tools.core.rates import Rates, usual_cpu
from tunesmith.tools.core.stage import CPU, GIB, Facts, Plan
from tunesmith.tools.machine import measure
from tunesmith.tools.training import preflight, train
from tunesmith.tools.training.choices import row_limit

CONFIG = {
    "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9,
    "vocab_size": 49152, "max_position_embeddings": 2048,
}  # fmt: skip
ROWS = {"train_rows": 80, "tokens_per_row": 90}
UNITS, NONE = Rates(9e11, 2e11, 3e10, 4e8), Rates(4e10, 2e11, 3e10, 4e8)


def known(machine: dict[str, Any] | None = None, rates: Rates | None = None, longest: int = 0, free: int = 20) -> Facts:
    base = Artifact("a1", "r1", "s1", "base", Path(), "0" * 64, 1, (), {"parameters": 135_000_000, "config": CONFIG})
    record = {"longest_row_tokens": longest} if longest else {}
    dataset = Artifact("a2", "r1", "s2", "dataset", Path(), "", 1, (), {**ROWS, **record})
    here = Machine("cpu", 2, whole_bytes(free * GIB), free * GIB, 0, 50 * GIB, **(machine or {}))
    artifacts = {"base": base, "dataset": dataset}
    return Facts(Path(), here, "r1", "/bin/true", artifacts=artifacts, measured={CPU: rates} if rates else {})


def planned(facts: Facts, stage: str = "train", **fields: Any) -> Plan:
    if stage == "train":
        return train.plan(train.TrainRequest(**fields), facts)
    return preflight.plan(preflight.PreflightRequest(**fields), facts)


@table(
    ("asked", "left", "accepted", "stops"),
    [
        (140, 36, False, True),
        (140, 36, True, False),
        (140, 120, False, False),
        (0, 36, False, False),
        (5, 0, False, True),
    ],
)
def test_training_on_far_fewer_rows_than_were_asked_for_stops_and_asks(
    asked: int, left: int, accepted: bool, stops: bool
) -> None:
    facts = known()
    dataset = facts.artifacts["dataset"]
    meta = {**dataset.meta, "asked_rows": asked, "own_rows": left}
    facts = replace(facts, artifacts={**facts.artifacts, "dataset": replace(dataset, meta=meta)})
    plan = planned(facts, few_rows=accepted)
    assert bool(plan.refusals) == bool(plan.questions) == stops
    if stops:
        (question,) = plan.questions
        assert f"{left} of the {asked} rows" in question.text and "generate --rows" in question.text
        assert not question.cautious, "--yes agrees to prices, not to half of what was promised"
        assert not planned(facts, **question.yes).refusals


STAGES = pytest.mark.parametrize("stage", ["train", "preflight"])


@table(
    ("longest", "limit"), [(0, 512), (1, 64), (48, 64), (49, 128), (700, 768), (2030, 2048), (2048, 2048), (9999, 2048)]
)
def test_rows_are_as_long_as_the_data_sets_longest_within_what_the_base_takes(longest: int, limit: int) -> None:
    artifacts = known(longest=longest).artifacts
    found, why = row_limit(artifacts["base"], artifacts["dataset"])
    assert found == limit and (f"{longest:,} tokens" in why) == bool(longest)
    bare = replace(artifacts["base"], meta={"config": {}})
    assert row_limit(bare, artifacts["dataset"])[0] >= longest, "a base that does not say what it takes"


@STAGES
def test_the_row_length_is_in_the_plan_with_its_reason_and_its_price(stage: str) -> None:
    short, long = (planned(known(longest=longest), stage) for longest in (100, 1900))
    assert (short.request["max_seq_len_tokens"], long.request["max_seq_len_tokens"]) == (128, 1920)
    assert long.reasons["max_seq_len_tokens"] == "the data set's longest row has 1,900 tokens"
    assert not long.refusals
    asked = planned(known(longest=1900), "train", micro_batch=1), planned(known(longest=100), "train", micro_batch=1)
    assert asked[0].estimate.peak_ram_bytes > asked[1].estimate.peak_ram_bytes


@STAGES
@pytest.mark.parametrize(
    ("longest", "fields", "told"),
    [
        (
            700,
            {"max_seq_len_tokens": 512},
            "has 700 tokens, and max_seq_len_tokens=512; try max_seq_len_tokens=768, or",
        ),
        (3000, {}, "longest row has 3,000 tokens, and the base takes 2,048; shorten or drop"),
        (700, {"max_seq_len_tokens": 700}, ""),
        (0, {"max_seq_len_tokens": 16}, ""),
    ],
)
def test_a_row_beyond_the_limit_is_said_before_the_step_starts(
    stage: str, longest: int, fields: dict[str, int], told: str
) -> None:
    import re

    refusals = planned(known(longest=longest), stage, **fields).refusals
    assert bool(refusals) == bool(told) and re.search(told, " ".join(refusals))


def test_a_row_of_a_few_tokens_is_no_limit() -> None:
    for wrong in (1, 15, -1):
        with pytest.raises(ValidationError):
            train.TrainRequest(max_seq_len_tokens=wrong)


@STAGES
@pytest.mark.parametrize(
    ("facts", "precision", "why"),
    [
        (lambda: known(), "bf16", ""),
        (lambda: known(rates=UNITS), "bf16", ""),
        (lambda: known(rates=NONE), "fp32", "was measured to multiply 200 GFLOP/s in fp32 and 40 GFLOP/s in bf16"),
        (lambda: known({"bf16_units": False}), "fp32", "no instructions for bf16"),
        (lambda: known({"bf16_units": False}, UNITS), "bf16", ""),
        (lambda: known({"bf16_units": False, "gpus": (gpu(0),)}), "bf16", ""),
        (lambda: known(rates=NONE, free=1), "bf16", "fp32 does not fit into 1.0 GiB"),
    ],
    ids=["usual", "units", "none", "by its flags", "measured against its flags", "a card", "no room"],
)
def test_a_processor_without_bf16_trains_in_fp32_and_the_plan_says_why(
    facts: Callable[[], Facts], precision: str, why: str, stage: str
) -> None:
    plan = planned(facts(), stage)
    assert plan.request["precision"] == precision and why in plan.reasons.get("precision", "")
    assert bool(why) == ("precision" in plan.reasons)
    asked = planned(facts(), stage, precision="bf16")
    assert asked.request["precision"] == "bf16" and "precision" not in asked.reasons


def test_the_price_follows_the_precision() -> None:
    chosen, bf16 = planned(known(rates=NONE)), planned(known(rates=NONE), precision="bf16")
    assert chosen.estimate.seconds < bf16.estimate.seconds
    assert chosen.estimate.peak_ram_bytes > 1.3 * bf16.estimate.peak_ram_bytes
    assert any("frozen fp32 base" in step for step in chosen.steps)
    assert (
        usual_cpu(2, bf16_units=False).bf16_flops < usual_cpu(2).fp32_flops == usual_cpu(2, bf16_units=False).fp32_flops
    )


@table(
    ("text", "units"),
    [
        ("processor : 0\nmodel name\t: Old Xeon\nflags\t\t: fpu avx2 avx512f\n", False),
        ("model name\t: EPYC\nflags\t\t: fpu avx512_bf16 fma\nvmx flags\t: x\n", True),
        ("vmx flags\t: ept\nflags\t\t: fpu amx_bf16 amx_tile\n", True),
        ("processor\t: 0\nFeatures\t: fp asimd bf16\n", True),
        ("processor\t: 0\nFeatures\t: fp asimd\n", False),
        ("", True),
    ],
)
def test_bf16_units_are_read_from_what_the_kernel_lists(
    monkeypatch: pytest.MonkeyPatch, text: str, units: bool
) -> None:
    monkeypatch.setattr(Path, "read_text", lambda path: text)
    assert measure._has_bf16_units() is units


BIG = CONFIG | {
    "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 24, "num_attention_heads": 16,
    "vocab_size": 150_000, "max_position_embeddings": 4096,
}  # fmt: skip


@table("free", [5, 6, 9])
def test_what_preflights_advice_says_of_memory_is_what_its_own_price_says_with_it(free: int) -> None:
    facts = known(longest=3000, free=free)
    base = replace(facts.artifacts["base"], meta={"parameters": 1_600_000_000, "config": BIG})
    facts = replace(facts, artifacts={**facts.artifacts, "base": base})
    asked = {"activation_checkpointing": "off", "batch_size": 4, "micro_batch": 4}
    plan = planned(facts, "preflight", **asked)
    assert plan.fitting
    for way in plan.fitting:
        told = dict(setting.split("=") for setting in way.settings.split(", "))
        assert planned(facts, "preflight", **{**asked, **told}).estimate.peak_ram_bytes == way.peak_bytes, way


@table(("seed", "taken"), [(0, True), (2**32 - 1, True), (-1, False), (2**32, False)])
def test_a_seed_that_numpy_does_not_take_is_refused_before_anything_is_paid(seed: int, taken: bool) -> None:
    with nullcontext() if taken else pytest.raises(ValidationError):
        train.TrainRequest(seed=seed)
