"""How many cards share a training's rows, and which rank computes which of them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest

from tests.fixtures.planted_gpus import GIB, gpu
from tests.fixtures.tables import table
from tests.gpu_rehearsal.tables import machine, model_of
from tunesmith.memory.errors import BadInput
from tunesmith.tools.core.stage import TRAINING, Facts, Plan, expected
from tunesmith.tools.machine.cards import Card
from tunesmith.tools.pipeline.fits import with_card
from tunesmith.tools.training.batch_loss import rows_of_rank
from tunesmith.tools.training.choices import choose_cards
from tunesmith.tools.training.lora_settings import LoraSettings
from tunesmith.tools.training.rank_job import launch_arguments
from tunesmith.tools.training.train import TrainRequest, plan
from tunesmith.tools.training.trained import OutOfMemory, ToTrain, Trained


def planned(facts: Facts, **fields: Any) -> Plan:
    model = model_of("qwen2.5-7b")
    base = expected("base", 2 * model.parameters, name="b", parameters=model.parameters, config=dict(model.config))
    dataset = expected("dataset", train_rows=4000, tokens_per_row=200)
    return plan(TrainRequest(**fields), replace(facts, artifacts={"base": base, "dataset": dataset}))


def cards(count: int, gib: float) -> Facts:
    return replace(with_card(machine(), Card("a card", gib, count=count)), margin=1.0)


def ample(cards: int) -> bool:
    return True


@table(
    ("names", "batch", "busy", "fits", "chosen"),
    [
        ("A", 8, 1, ample, 1), ("AA", 8, 4, ample, 2), ("AA", 8, 5, ample, 1),  # kept busy or left alone
        ("AAA", 8, 1, ample, 2), ("AAA", 9, 1, ample, 3),  # evenly
        ("AAB", 8, 1, ample, 2), ("AB", 8, 1, ample, 1),  # of one kind
        ("AAAA", 8, 1, lambda cards: cards < 3, 2), ("AAAAAAAAA", 4, 1, ample, 4),
    ],
)  # fmt: skip
def test_as_many_equal_cards_share_the_rows_evenly_as_have_room_and_are_kept_busy(
    names: str, batch: int, busy: int, fits: Callable[[int], bool], chosen: int
) -> None:
    gpus = tuple(replace(gpu(index, free=30 - index), name=name) for index, name in enumerate(names))
    facts = replace(cards(1, 80), machine=replace(machine(), gpus=gpus))
    count, why = choose_cards(0, facts, batch, busy, fits)
    assert count == chosen and bool(why) == (chosen > 1)
    assert choose_cards(0, replace(facts, cpu_builds=frozenset({TRAINING})), batch, busy, fits) == (1, "")


def test_a_plan_of_several_cards_prices_each_of_them_and_one_says_nothing() -> None:
    one, two = planned(cards(1, 80)), planned(cards(2, 80))
    assert one.request["cards"] == one.estimate.cards == 1 and "cards" not in one.reasons
    assert two.request["cards"] == two.estimate.cards == 2 and "2 cards of one kind" in two.reasons["cards"]
    assert two.request["batch_size"] == one.request["batch_size"] == 8
    assert not any("shared" in line for line in one.steps)
    assert any("shared by 2 cards, NCCL between them: 4 rows each" in line for line in two.steps)
    assert two.estimate.peak_vram_bytes < one.estimate.peak_vram_bytes and two.estimate.seconds < one.estimate.seconds


@table("gib", [16.8, 17.0, 17.5])
def test_where_a_card_computes_a_step_in_parts_others_take_theirs(gib: float) -> None:
    parts = 8 // planned(cards(1, gib)).request["micro_batch"]
    assert parts > 1
    shared = planned(cards(8, gib))
    assert shared.request["cards"] == parts and not shared.refusals and shared.estimate.peak_vram_bytes <= gib * GIB


def test_processes_on_a_processor_share_its_memory_and_are_no_faster() -> None:
    facts = replace(cards(1, 80), machine=replace(machine(), ram_total_bytes=200 * GIB))
    one, two = planned(facts), planned(facts, cards=2)
    assert one.estimate.cards == 1 and any("2 processes on the same cores, gloo" in line for line in two.steps)
    assert two.estimate.peak_ram_bytes > 1.5 * one.estimate.peak_ram_bytes
    assert two.estimate.seconds > one.estimate.seconds


@pytest.mark.parametrize(
    ("count", "asked", "told"), [(4, 3, "cards=3 do not share batch_size=8 evenly; try cards=1"), (2, 4, "2 are here")]
)
def test_a_number_that_cannot_be_is_refused_with_one_that_can(count: int, asked: int, told: str) -> None:
    with pytest.raises(BadInput, match=told):
        planned(cards(count, 80), cards=asked)


@pytest.mark.parametrize("ranks", [1, 2, 3, 8])
@pytest.mark.parametrize("lengths", [[], [5], [1, 9, 9, 3, 7, 2, 8], [4] * 8, [100, 1, 1, 1, 1, 1, 1, 1]])
def test_every_row_is_computed_by_one_rank_and_none_has_more_than_a_row_beyond_its_part(
    lengths: list[int], ranks: int
) -> None:
    own = [rows_of_rank(lengths, rank, ranks) for rank in range(ranks)]
    assert sorted(row for rows in own for row in rows) == list(range(len(lengths)))
    assert max(map(len, own)) - min(map(len, own)) <= 1
    tokens = [sum(lengths[row] for row in rows) for rows in own]
    assert max(tokens) - min(tokens) <= max(lengths, default=0)


def test_ranks_get_about_as_many_tokens() -> None:
    assert [rows_of_rank([2, 8, 4, 6], rank, 2) for rank in (0, 1)] == [[1, 0], [3, 2]]


def test_accelerate_starts_a_process_a_card_of_this_machine_and_the_cores_are_shared() -> None:
    argv = launch_arguments(2, 8, ["1", "asked.json"])
    assert {"--multi_gpu", "--num_processes=2", "--num_machines=1", "--num_cpu_threads_per_process=4"} <= set(argv)
    assert argv[-4:] == ["--module", "tunesmith.tools.training.rank_job", "1", "asked.json"]
    assert "--num_cpu_threads_per_process=1" in launch_arguments(4, 2, [])


@table(
    ("first", "fits", "tried"),
    [(8, 8, [8]), (8, 2, [8, 4, 2]), (6, 1, [6, 3, 1]), (8, 0, [8, 4, 2, 1]), (1, 0, [1])],
)  # fmt: skip
def test_where_memory_runs_out_fewer_rows_are_tried_at_once_down_to_one(
    tmp_path: Any, first: int, fits: int, tried: list[int]
) -> None:
    from tunesmith.tools.training.train_job import in_smaller_parts

    seen: list[int] = []

    def train(asked: ToTrain) -> Trained:
        seen.append(asked.settings.rows_at_once)
        if seen[-1] > fits:
            raise OutOfMemory("out of memory")
        return Trained(1, 1.0, 1.0, None, None, 1, 1, 1.0)

    settings = LoraSettings(batch_size=first)
    asked = ToTrain(tmp_path, tmp_path, tmp_path, settings, checkpoints_dir=tmp_path)
    with nullcontext() if fits else pytest.raises(OutOfMemory):
        assert bool(in_smaller_parts(asked, train).fallback) == (first > fits)
    assert seen == tried


def test_a_plan_says_what_is_done_where_memory_runs_out_and_how_long_it_takes_at_most() -> None:
    facts = cards(1, 80)
    [line] = [line for line in planned(facts).steps if "memory runs out" in line]
    assert "1 at the least: up to" in line and line.endswith("longer")
    assert not any("memory runs out" in line for line in planned(facts, micro_batch=1).steps)


@table(
    ("other", "goes_on"),
    [({"cards": 2}, True), ({"micro_batch": 2}, True), ({"activation_checkpointing": "on"}, True),
     ({"usual_row_tokens": 90}, True), ({"batch_size": 4}, False), ({"load_in_4bit": True}, False)],
)  # fmt: skip
def test_however_a_step_is_computed_a_training_goes_on_from_its_checkpoint(
    tmp_path: Any, other: dict[str, Any], goes_on: bool
) -> None:
    """Several cards, and parts of any size, compute the same step, so a checkpoint is of both."""
    from tunesmith.tools.training.lora_settings import fingerprint

    (tmp_path / "rows.jsonl").write_text("{}")
    one, two = (fingerprint(tmp_path, tmp_path / "rows.jsonl", of) for of in (LoraSettings(), LoraSettings(**other)))
    assert (one == two) == goes_on
