"""Several cards in one machine: how many are taken, what vLLM is told, and what a plan says of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.planted_gpus import GIB, gpu, plant
from tests.fixtures.tables import table
from tests.gpu_rehearsal.tables import machine, model_of
from tunesmith.memory.errors import BadInput, StepFailed
from tunesmith.tools.core.stage import Estimate, Facts, Plan, expected
from tunesmith.tools.machine.cards import Card
from tunesmith.tools.machine.gpus import server_environment
from tunesmith.tools.models.measuring import FOUR, SIXTEEN, choose, measuring_bytes, measuring_cards
from tunesmith.tools.models.memory_math import splits
from tunesmith.tools.pipeline import tenancy as tenancy_module
from tunesmith.tools.pipeline.fits import plans_of, with_card
from tunesmith.tools.pipeline.tenancy import tenancy
from tunesmith.tools.serving.budget import claim, serving_cards
from tunesmith.tools.serving.context_settings import ContextSettings, context_settings_of
from tunesmith.tools.serving.spec import ServerSpec, arguments, engine_arguments

SPEC = ServerSpec(model_dir="/m", served_name="m", device="cuda", gpu_bytes=10 * GIB, gpu_cache_bytes=GIB)
LLAMA_70B = dict(model_of("llama-3.1-70b").config)
QWEN_7B = dict(model_of("qwen2.5-7b").config)


def of(count: int, gib: float) -> Facts:
    """What a plan knows of so many equal cards."""
    return with_card(machine(), Card(f"{count} cards", gib, count=count))


@table(
    ("config", "bits", "count", "gib", "cards"),
    [
        (QWEN_7B, SIXTEEN, 1, 24, 1), (QWEN_7B, SIXTEEN, 8, 24, 1),  # one holds it: the others are left alone
        (QWEN_7B, SIXTEEN, 2, 16, 2), (QWEN_7B, SIXTEEN, 1, 16, 0),
        (QWEN_7B, SIXTEEN, 3, 8, 0), (QWEN_7B, SIXTEEN, 4, 8, 4),  # its 28 heads are split by 2 and 4, not by 3
        (LLAMA_70B, SIXTEEN, 8, 24, 8), (LLAMA_70B, SIXTEEN, 2, 80, 2), (LLAMA_70B, SIXTEEN, 4, 48, 4),
        (LLAMA_70B, FOUR, 2, 20, 0), (LLAMA_70B, FOUR, 2, 24, 2), (LLAMA_70B, FOUR, 1, 80, 1),
        (LLAMA_70B, SIXTEEN, 7, 22, 0),  # eight of them would do
    ],
)  # fmt: skip
def test_the_fewest_cards_that_hold_a_base_are_taken(
    config: Any, bits: Any, count: int, gib: float, cards: int
) -> None:
    facts = of(count, gib)
    assert measuring_cards(config, facts, bits) == cards
    if cards:
        assert measuring_bytes(config, facts, bits, cards=cards) <= gib * GIB
        fewer = [n for n in range(1, cards) if splits(config, n)]
        assert all(measuring_bytes(config, facts, bits, cards=n) > gib * GIB for n in fewer)
        assert facts.artifacts == {} and splits(config, cards)


@table("cards", range(1, 9))
def test_vllm_splits_whole_heads_whole_groups_and_copies_of_key_value_heads(cards: int) -> None:
    assert splits({}, cards) is (cards == 1)  # of an unknown shape nothing is promised
    small = {**QWEN_7B, "num_attention_heads": 8, "num_key_value_heads": 2, "intermediate_size": 1024}
    assert splits(small, cards) is (cards in (1, 2, 4, 8))
    assert splits(small, cards, group_size=128) is (cards in (1, 2, 4, 8))
    assert splits({**small, "intermediate_size": 512}, cards, group_size=128) is (cards in (1, 2, 4))
    assert splits({**small, "num_attention_heads": 6}, cards) is (cards in (1, 2))
    assert splits({**small, "num_key_value_heads": 3, "num_attention_heads": 6}, cards) is (cards == 1)


def test_two_cards_measure_at_16_bits_what_one_would_at_4() -> None:
    assert choose("auto", QWEN_7B, of(1, 16)).bits == "4"
    both = choose("auto", QWEN_7B, of(2, 16))
    assert both.bits == "16" and "split over 2 cards" in both.reason


def test_the_number_of_cards_is_vllms_and_part_of_what_answers_are_comparable_by() -> None:
    assert not any("tensor" in argument for argument in arguments(SPEC, 1))
    two = SPEC.model_copy(update={"cards": 2})
    assert "--tensor-parallel-size=2" in engine_arguments(two) and engine_arguments(two) != engine_arguments(SPEC)


def test_a_server_sees_its_cards_alone_and_the_fullest_of_them_says_what_it_may_take(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plant(monkeypatch)
    cards = [gpu(0, free=12), gpu(1, free=23), gpu(2, free=5), gpu(3, free=22)]
    assert server_environment(cards, 2)["CUDA_VISIBLE_DEVICES"] == "GPU-1f00,GPU-3f00"
    here = replace(machine(), gpus=tuple(cards))
    assert [here.vram_free_on(n) / GIB for n in (1, 2, 4, 5)] == [23, 22, 5, 0]
    two = SPEC.model_copy(update={"cards": 2})
    assert claim(two, cards, alone=False) == claim(SPEC, cards[3:], alone=False)
    with pytest.raises(StepFailed, match=r"10\.0 GiB of Card 2, 5\.0 of 24"):
        claim(two.model_copy(update={"cards": 4}), cards, alone=True)
    with pytest.raises(StepFailed, match="planned for 8 GPUs and 4 are here"):
        claim(two.model_copy(update={"cards": 8}), cards, alone=True)


def test_all_arms_of_a_run_are_served_on_as_many_cards_as_its_baseline() -> None:
    base = expected("base", 2 * 7_615_616_512, name="b", parameters=7_615_616_512, config=QWEN_7B)
    facts = replace(of(4, 16), artifacts={"base": base})
    assert serving_cards(facts, base) == 2
    assert serving_cards(facts, base, asked=4) == 4
    measured = replace(base, id="a1", kind="suite", meta=ContextSettings(cards=4).recorded)
    assert serving_cards(replace(facts, artifacts={"base": base, "suite": measured}), base) == 4
    assert context_settings_of({"suite": measured}).cards == 4 and "cards" not in ContextSettings().recorded
    for asked, why in ((3, "try cards=1 or 2 or 4"), (8, "vLLM has 4 GPUs here")):
        with pytest.raises(BadInput, match=why):
            serving_cards(facts, base, asked=asked)
    with pytest.raises(BadInput, match="vLLM has no GPU here"):
        serving_cards(replace(facts, machine=machine()), base, asked=2)


def test_every_step_of_the_way_says_its_cards_and_one_card_says_nothing() -> None:
    model = model_of("llama-3.1-70b")
    plans = plans_of(model, of(4, 80))
    for step in ("baseline", "generate", "evaluate", "deploy merged"):
        plan = plans[step]
        assert plan.estimate.cards == 2 and not plan.refusals, step
        assert any("over 2 cards (--tensor-parallel-size)" in line for line in plan.steps), step
    assert plans["baseline"].request["cards"] == 2
    alone = plans_of(model_of("qwen2.5-7b"), of(1, 80))
    assert {plan.estimate.cards for plan in alone.values()} == {1}
    assert not any("cards" in line for plan in alone.values() for line in plan.steps)


def test_a_base_that_no_number_of_cards_holds_names_what_would_serve_it() -> None:
    refusals = plans_of(model_of("llama-3.1-70b"), of(2, 16))["baseline"].refusals
    assert any("vLLM alone does that, over Ray: docs/models.md" in line for line in refusals)
    command = Path("docs/models.md").read_text()
    assert "--distributed-executor-backend ray" in command


def test_a_plan_of_one_card_keeps_the_hash_that_it_had_before_there_were_several() -> None:
    plan = Plan(stage="train", run="r1", summary="", steps=(), request={}, estimate=Estimate(seconds=1, basis=""))
    assert plan.hash == "93940483a6cfc355eda07c5f7ca3c44524bb3845144536a1f2b54acf0fa5c8b9"
    assert plan.model_copy(update={"estimate": Estimate(seconds=1, basis="", cards=2)}).hash != plan.hash


@pytest.mark.heavy
def test_a_step_holds_all_of_its_cards(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tenancy_module, "_folder_of_all_homes", lambda: tmp_path)
    cards, waited = [gpu(0), gpu(1), gpu(2, free=1)], list[str]()

    class Waited(Exception):
        pass

    def waiting(what: str) -> None:
        waited.append(what)
        raise Waited

    homes = [tmp_path / name for name in ("one", "two", "three")]
    for home in homes:
        home.mkdir()
    with tenancy(homes[0], "s1", cards, cards=2, waiting=waiting, log=waited.append):
        with pytest.raises(Waited), tenancy(homes[1], "s2", cards[1:2], waiting=waiting, log=waited.append):
            pass
        with tenancy(homes[2], "s3", cards[2:], waiting=waiting, log=waited.append):
            pass
    assert len(waited) == 1 and waited[0].startswith("waiting for Card 1 to be left by s1")
