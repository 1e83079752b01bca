"""How a base is trained is decided in one place: what is typed stands, the best way that fits is taken, and every way
that a refusal names does fit."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.tables import table
from tests.gpu_rehearsal.tables import machine, model_of
from tunesmith.memory.errors import BadInput
from tunesmith.memory.store import Store
from tunesmith.tools.core.machine import Machine, whole_bytes
from tunesmith.tools.core.stage import GIB, TRAINING, Facts, Plan, expected
from tunesmith.tools.machine.cards import card_of
from tunesmith.tools.models.fitting import ANOTHER_BASE
from tunesmith.tools.models.measuring import MEASURED_AT, Asked
from tunesmith.tools.pipeline.catalog import BY_NAME
from tunesmith.tools.pipeline.fits import ROW_TOKENS, ROWS, fits, with_card
from tunesmith.tools.pipeline.planning_facts import margin_of
from tunesmith.tools.training.choices import TrainingMemory
from tunesmith.tools.training.preflight import PreflightRequest
from tunesmith.tools.training.train import TrainRequest, training_bytes

STAGES = ("train", "preflight")
BY_ITSELF_AT_FOUR = [
    ("qwen3-4b", "8"), ("qwen3-8b", "12"), ("qwen3-8b", "16"), ("qwen2.5-14b", "24"), ("qwen3-30b-a3b", "24"),
]  # fmt: skip
MIXTURE = "qwen3-30b-a3b"
MEASURED: tuple[Asked, ...] = ("auto", "16", "4")


def known(
    name: str,
    card: str | float,
    *,
    measuring: Asked = "auto",
    rows: int = ROWS,
    tokens: int = ROW_TOKENS,
    margin: float = 1.0,
) -> Facts:
    """Of a machine with a card that was measured, or without any and so many GiB of RAM (a number below 0)."""
    on_card = isinstance(card, str) or card > 0
    here = with_card(machine(), card_of(card) if isinstance(card, str) else card) if on_card else _ram(-float(card))
    model = model_of(name)
    meta = {"name": name, "parameters": model.parameters, "config": dict(model.config), MEASURED_AT: measuring}
    base = expected("base", 2 * model.parameters, **meta)
    dataset = expected("dataset", train_rows=rows, tokens_per_row=tokens)
    return replace(here, artifacts={"base": base, "dataset": dataset}, margin=margin)


def _ram(gib: float) -> Facts:
    return Facts(Path(), replace(machine(), ram_total_bytes=whole_bytes(int(gib * GIB))), "", "vllm")


def planned(stage: str, facts: Facts, **fields: Any) -> Plan:
    declared = BY_NAME[stage].load()
    return declared.plan(declared.request.model_validate(fields), facts, declared.usual_context(facts))


def peak(plan: Plan) -> int:
    return plan.estimate.peak_vram_bytes or plan.estimate.peak_ram_bytes


@table(
    ("name", "card", "rows", "tokens", "epochs"),
    [
        ("qwen3-8b", "24", 846, 100, 3.0),
        ("qwen2.5-14b", "24", 3000, 100, 3.0),
        ("qwen2.5-32b", "24", 3000, 500, 1.0),
        ("qwen3-8b", -32, 846, 100, 1.13),
    ],
)
def test_a_training_is_long_only_where_that_is_cheap_beside_the_rest(
    name: str, card: str | float, rows: int, tokens: int, epochs: float
) -> None:
    plan = planned("train", known(name, card, rows=rows, tokens=tokens))
    assert plan.request["epochs"] == epochs, (plan.request["epochs"], plan.estimate.seconds, plan.reasons["epochs"])


def thrift(plan: Plan) -> tuple[bool, bool, int]:
    """How much a way saves: 4 bits before checkpointing, that before fewer rows at once."""
    request = plan.request
    rows = request["micro_batch"] if request["micro_batch"] != "auto" else request["batch_size"]
    assert isinstance(rows, int)
    return bool(request["load_in_4bit"]), request["activation_checkpointing"] == "on", -rows


@table(("name", "card"), BY_ITSELF_AT_FOUR)
def test_what_fits_at_4_bits_alone_is_trained_so_unasked(name: str, card: str) -> None:
    facts = known(name, card)
    for stage in STAGES:
        plan = planned(stage, facts)
        assert plan.request["load_in_4bit"] is True and not plan.refusals
        free = f"there is room for {facts.machine.vram_room_on(1) / GIB:.1f}; at 4 bits"
        assert "training at 16 bits needs" in plan.reasons["load_in_4bit"] and free in plan.reasons["load_in_4bit"]


@pytest.mark.heavy
@table(("name", "card"), BY_ITSELF_AT_FOUR)
def test_fits_says_what_a_plan_decides_by_itself(name: str, card: str) -> None:
    facts = known(name, card)
    report = fits(model_of(name), facts)
    for stage in STAGES:
        [sixteen], [four] = (report.of(stage, precision=bits) for bits in ("bf16", "nf4"))
        assert four.fits and not sixteen.fits
        if stage == "train":
            assert peak(planned(stage, facts)) == four.peak_bytes


@table(("name", "card"), BY_ITSELF_AT_FOUR)
def test_16_bits_that_were_typed_are_refused_with_the_numbers_and_what_would_do(name: str, card: str) -> None:
    facts = known(name, card)
    for stage in STAGES:
        refused = planned(stage, facts, load_in_4bit=False)
        [refusal] = refused.refusals
        assert refused.request["load_in_4bit"] is False and "load_in_4bit" not in refused.reasons
        assert (
            f"{peak(refused) / GIB:.1f} GiB of VRAM, there is room for {facts.machine.vram_room_on(1) / GIB:.1f} GiB"
            in refusal
        )
        assert [way.settings for way in refused.fitting] == ["load_in_4bit=true"] and str(refused.fitting[0]) in refusal
        assert peak(planned(stage, facts, load_in_4bit=True)) == refused.fitting[0].peak_bytes


@table(("name", "card"), [("qwen3-8b", "24"), ("qwen3-4b", "12"), ("llama-3.2-1b", "8"), (MIXTURE, "80")])
def test_16_bits_are_kept_where_they_fit(name: str, card: str) -> None:
    plan = planned("train", known(name, card))
    assert plan.request["load_in_4bit"] is False and not plan.refusals
    assert f"training at 16 bits needs {peak(plan) / GIB:.1f} GiB" in plan.reasons["load_in_4bit"]


@table(
    ("card", "typed"),
    [("80", {"load_in_4bit": True}), ("12", {"load_in_4bit": True}), ("80", {"activation_checkpointing": "on"}),
     ("80", {"micro_batch": 1}), ("12", {"micro_batch": 1}), ("80", {"precision": "fp32"}),
     ("24", {"activation_checkpointing": "off"}), ("12", {"load_in_4bit": False}),
     ("80", {"load_in_4bit": True, "micro_batch": 2, "activation_checkpointing": "on", "precision": "fp32"})],
)  # fmt: skip
def test_what_is_typed_stands_whether_it_fits_or_not(card: str, typed: dict[str, Any]) -> None:
    facts = known("qwen3-8b", card)
    for stage in STAGES:
        plan = planned(stage, facts, **typed)
        assert {name: plan.request[name] for name in typed} == typed
        assert not {*typed} & {*plan.reasons}
        if stage == "train":
            base, dataset, request = (
                facts.artifacts["base"],
                facts.artifacts["dataset"],
                TrainRequest.model_validate(plan.request),
            )
            assert peak(plan) == training_bytes(request, base, dataset, on_cpu=False), "and is what is priced"
        assert {"load_in_4bit", "activation_checkpointing"} <= {*typed, *plan.reasons}


@pytest.mark.heavy
@table("cards", [("8", "12", "16", "24", "48", "80"), (-2, -4, -8, -16, -32, -64)])
def test_more_memory_never_brings_a_thriftier_way(cards: tuple[str | float, ...]) -> None:
    for name in ("llama-3.2-1b", "qwen3-4b", "qwen3-8b", "qwen2.5-14b", MIXTURE):
        for rows in (100, ROWS, 1500):
            plans = [planned("train", known(name, card, rows=rows)) for card in cards]
            ways = [thrift(plan) for plan in plans if not plan.refusals]
            assert ways == sorted(ways, reverse=True), (name, rows)
            refused = [bool(plan.refusals) for plan in plans]
            assert refused == sorted(refused, reverse=True), (name, rows)


def asked(draw: random.Random) -> dict[str, Any]:
    """What a user might type, of settings that bear on memory."""
    every = {
        "load_in_4bit": (False, True), "activation_checkpointing": ("on", "off"), "micro_batch": (1, 2, 4, 8),
        "precision": ("bf16", "fp32"), "batch_size": (8,), "lora_rank": (8, 64), "lora_dropout": (0.1,),
    }  # fmt: skip
    return {name: draw.choice(values) for name, values in every.items() if draw.random() < 0.5} | {"batch_size": 8}


@pytest.mark.heavy
@table("card", ["8", "12", "24", "80", -3, -12, -40])
def test_no_way_that_a_refusal_names_fails_to_fit_and_each_needs_what_is_said(card: str | float) -> None:
    draw, named = random.Random(7), 0
    for _ in range(60):
        name, measuring = draw.choice(("qwen3-4b", "qwen3-8b", "qwen2.5-14b", MIXTURE)), draw.choice(MEASURED)
        tokens, fields = draw.choice((128, 900)), asked(draw)
        facts = known(name, card, measuring=measuring, tokens=tokens)
        try:
            plan = planned("train", facts, **fields)
        except BadInput as error:
            assert "a mixture at 4 bits needs activation_checkpointing" in str(error)
            continue
        assert bool(plan.refusals) >= bool(plan.fitting)
        for way in plan.fitting:
            if way.settings.startswith(ANOTHER_BASE):
                other = known(way.settings.removeprefix(ANOTHER_BASE), card, tokens=tokens)
                again = planned("train", other, **fields)
            else:
                again = planned("train", facts, **fields | dict(one.split("=") for one in way.settings.split(", ")))
            assert not again.refusals, (name, measuring, fields, way)
            assert peak(again) == way.peak_bytes, (name, measuring, fields, way)
            named += 1
    assert named > 5


@table(
    ("measuring", "card", "trained"),
    [("4", 140.0, True), ("16", 140.0, False), ("auto", "24", True), ("16", "48", True)],
)
def test_a_mixture_that_is_measured_at_4_bits_is_trained_at_4_bits(
    measuring: Asked, card: str | float, trained: bool
) -> None:
    facts = known(MIXTURE, card, measuring=measuring)
    for stage in STAGES:
        plan = planned(stage, facts)
        assert plan.request["load_in_4bit"] is trained
        told = "a mixture's server takes adapters of attention alone" in plan.reasons["load_in_4bit"]
        assert told == (measuring != "16")
    dense = known("qwen3-8b", 140.0, measuring="4")
    assert planned("train", dense).request["load_in_4bit"] is False, "a dense model has no experts"


@table("typed", [{}, {"load_in_4bit": False}, {"load_in_4bit": True}])
def test_the_rank_is_that_of_the_bits_that_were_decided(typed: dict[str, Any]) -> None:
    """25.6 M tokens: a rank of 16 is enough for experts, and 32 for attention alone."""
    plan = planned("train", known(MIXTURE, 140.0, measuring="16" if typed else "4", rows=200_000), **typed)
    rank = 32 if plan.request["load_in_4bit"] else 16
    assert (plan.request["lora_rank"], plan.request["lora_alpha"]) == (rank, 2 * rank)
    assert f"an adapter of rank {rank} has" in plan.reasons["lora_rank"]


def test_experts_at_4_bits_are_not_kept_for_the_backward_pass() -> None:
    with pytest.raises(BadInput, match="a mixture at 4 bits needs activation_checkpointing"):
        planned("train", known(MIXTURE, "24"), activation_checkpointing="off")
    kept = planned("train", known(MIXTURE, 200.0, measuring="16"), activation_checkpointing="off")
    assert kept.request["load_in_4bit"] is False and not kept.refusals


@table(("name", "card"), [*BY_ITSELF_AT_FOUR, ("qwen3-8b", "24")])
def test_what_auto_became_is_what_is_agreed_to(name: str, card: str) -> None:
    for stage in STAGES:
        open_ = planned(stage, known(name, card))
        became = open_.request["load_in_4bit"]
        assert isinstance(became, bool)
        assert open_.hash == planned(stage, known(name, card), load_in_4bit=became).hash
        other = open_.model_copy(update={"request": {**open_.request, "load_in_4bit": not became}})
        assert other.hash != open_.hash


@table(
    ("rows", "typed"),
    [(234, {}), (600, {}), (1500, {}), (90, {}), (600, {"batch_size": 32}), (600, {"batch_size": 16, "micro_batch": 4}),
     (600, {"lora_dropout": 0.1}), (1500, {"load_in_4bit": True, "lora_rank": 64})],
)  # fmt: skip
def test_preflight_tries_the_way_that_training_will_take(rows: int, typed: dict[str, Any]) -> None:
    for card in ("16", "2x24", -24):
        facts = known("qwen3-8b", card, rows=rows)
        train, preflight = (planned(stage, facts, **typed) for stage in STAGES)
        request = PreflightRequest.model_validate(preflight.request)
        assert all(train.request[name] == preflight.request[name] for name in TrainingMemory.model_fields
                   if name != "micro_batch")  # fmt: skip
        each = train.request["batch_size"] // train.request["cards"]  # type: ignore[operator]
        at_once = each if train.request["micro_batch"] == "auto" else train.request["micro_batch"]
        assert request.rows_at_once == at_once and request.step_rows >= at_once and request.rows >= at_once
        assert peak(preflight) >= peak(train)


def test_a_card_that_nobody_measured_keeps_a_margin() -> None:
    facts = known("qwen3-8b", "16")
    sure, careful = planned("train", facts), planned("train", replace(facts, margin=1.1))
    there = facts.machine.vram_room_on(1)
    assert there < 1.1 * peak(sure), "or it shows nothing"
    assert peak(careful) <= there and thrift(careful) > thrift(sure)


def test_a_named_card_is_one_that_nobody_measured_and_every_price_of_training_has_its_margin(tmp_path: Path) -> None:
    assert with_card(machine(), 24).margin == 1.1 and with_card(machine(), 24).machine.swap_free_bytes == 0
    gpu = with_card(machine(), card_of("4090")).machine.gpus[0]
    assert (gpu.total_bytes, gpu.compute_capability) == (24564 << 20, "8.9")
    assert with_card(machine(), card_of("24")).machine.gpus[0].compute_capability == "8.6"
    for stage in STAGES:
        plans = [planned(stage, known("llama-3.2-3b", "48", margin=margin)) for margin in (1.0, 1.1)]
        assert peak(plans[1]) == math.ceil(1.1 * peak(plans[0])), stage
    nothing = Store(tmp_path)
    held = [margin_of(nothing, known("qwen3-8b", card).machine, builds) for card, builds in (
        ("24", frozenset[str]()), ("24", frozenset({TRAINING})), (-24, frozenset[str]()),
    )]  # fmt: skip
    assert held == [1.1, 1.0, 1.0], "RAM is what a processor's training takes: the kernel's own figure was measured"


def test_the_margin_is_what_the_newest_measured_training_of_this_machine_took(tmp_path: Path) -> None:
    store, mine = Store(tmp_path), known("qwen3-8b", "24").machine
    run = store.new_run("r")

    def took(peak: int, expected: int, machine: Machine = mine, error: str = "") -> float:
        step = store.propose(run, "train", plan_hash="0")
        store.decide(step, "yes", by="test", reason="", price={})
        store.claim(step, needs_approval=True, pid=1, pid_started=1.0, boot_id="b")
        result: dict[str, object] = {"peak_vram_bytes": peak, "expected_vram_bytes": expected}
        if error:
            store.fail(step, error)
        else:
            store.finish(step, result)
            store.event("step.done", run=run, step=step, machine=machine.fingerprint)
        return round(margin_of(store, mine, frozenset()), 3)

    assert margin_of(store, mine, frozenset()) == 1.1, "nothing was measured"
    assert [took(peak, 100) for peak in (105, 90, 250, 120)] == [1.05, 1.0, 1.3, 1.2]
    assert took(103, 0) == took(0, 103) == took(101, 100, error="it broke") == 1.2, "these tell nothing"
    assert took(101, 100, known("qwen3-8b", "4090").machine) == 1.2, "another card's"


def test_little_ram_brings_4_bits_without_a_card() -> None:
    plans = [planned("train", known("qwen3-4b", -gib)) for gib in (7.0, 40.0)]
    assert [plan.request["load_in_4bit"] for plan in plans] == [True, False] and not any(p.refusals for p in plans)
