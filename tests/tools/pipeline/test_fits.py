"""What is said to fit is what the plans say; what does not comes with something that was tried and does."""

from __future__ import annotations

import json
import random
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.tables import table
from tests.fixtures.terminal import Tunesmith
from tunesmith.memory.errors import BadInput
from tunesmith.memory.store import Store
from tunesmith.tools.core.machine import Machine
from tunesmith.tools.core.stage import GIB, SERVING, TRAINING, Facts, Plan, expected
from tunesmith.tools.machine.cards import card_of
from tunesmith.tools.models import base
from tunesmith.tools.models.base import BaseContext
from tunesmith.tools.models.find import find_model
from tunesmith.tools.models.fitting import ANOTHER_BASE
from tunesmith.tools.models.memory_math import expert_slot_bytes
from tunesmith.tools.models.model_names import NamedModel, SeveralSizes, named_model, of_size, usual_models
from tunesmith.tools.pipeline import fits as fits_module
from tunesmith.tools.pipeline.catalog import BY_NAME
from tunesmith.tools.pipeline.fits import Fits, Task, facts_here, fits, lacking, plan_of, plans_of, to_json, with_card
from tunesmith.tools.pipeline.inspect_job import report

TASKS = {"base", "preflight", "train", "measure", "merge", "quantize", "serve"}


def machine(ram_gib: float = 64) -> Machine:
    return Machine("a processor", 8, int(ram_gib * GIB), int(ram_gib * GIB), 0, 5000 * GIB)


def facts(card_gib: float, ram_gib: float = 64) -> Facts:
    """Of a machine with a card that was measured, or without any (0)."""
    here = with_card(machine(ram_gib), card_gib) if card_gib else None
    return replace(here, margin=1.0) if here else Facts(Path(), machine(ram_gib), "", "vllm")


def on_card(name: str, card_gib: float, ram_gib: float = 64) -> Fits:
    return fits(find_model(name)[0], facts(card_gib, ram_gib))


def task(answer: Fits, name: str, precision: str) -> Task:
    [found] = answer.of(name, precision=precision)
    return found


def some_models(count: int) -> list[NamedModel]:
    """Shapes that nobody published, dense and mixtures, from a tenth of a billion parameters to a hundred billions."""
    draw, models = random.Random(11), []
    for number in range(count):
        head_dim, heads = draw.choice((64, 96, 128)), draw.choice((8, 16, 24, 32, 64))
        config: dict[str, Any] = {
            "model_type": draw.choice(("llama", "qwen2", "gemma2", "unheard_of")),
            "hidden_size": head_dim * heads,
            "intermediate_size": head_dim * heads * draw.choice((2, 3, 4)),
            "num_hidden_layers": draw.randint(4, 80),
            "num_attention_heads": heads,
            "num_key_value_heads": draw.choice((1, heads // 4, heads)),
            "vocab_size": draw.choice((32_000, 49_152, 151_936, 256_000)),
            "tie_word_embeddings": draw.random() < 0.5,
        }
        if draw.random() < 0.3:
            experts, width = draw.choice((8, 64, 128)), draw.choice((256, 768, 1536))
            config |= {"num_experts": experts, "num_experts_per_tok": 2, "moe_intermediate_size": width}
        models.append(NamedModel(f"shape {number}", config))
    return models


def planned_again(model: NamedModel, known: Facts, step: str, settings: str) -> Plan:
    """The same step with the settings that its refusal names."""
    if settings.startswith(ANOTHER_BASE):
        other = named_model(settings.removeprefix(ANOTHER_BASE))
        assert other is not None
        return plan_of(step, other, known)
    return plan_of(step, model, known, **dict(setting.split("=") for setting in settings.split(", ")))


@pytest.mark.heavy
@table("card", [0, 8, 24, 80])
def test_every_setting_that_a_refusal_names_does_fit(card: float) -> None:
    named = 0
    for model in (*usual_models(), *some_models(12)):
        known = facts(card, ram_gib=24)
        for step, plan in plans_of(model, known).items():
            assert bool(plan.refusals) >= bool(plan.fitting)
            for way in plan.fitting:
                again = planned_again(model, known, step, way.settings)
                assert not again.refusals, (model.name, step, way)
                assert again.estimate.peak_vram_bytes or again.estimate.peak_ram_bytes
                named += 1
    assert named > 10


@pytest.mark.heavy
@table("card", [0, 8, 24, 80])
def test_a_larger_card_or_more_ram_never_loses_a_task(card: float) -> None:
    for model in usual_models():
        smaller, larger = (fits(model, facts(times * card, 24 * times)) for times in (1, 2))
        assert {task.task for task in smaller.tasks} == TASKS
        for before, after in zip(smaller.tasks, larger.tasks, strict=True):
            assert after.fits or not before.fits
            assert before.vram_bytes <= card * GIB or not before.fits
            assert before.plan.estimate.seconds > 0 and before.peak_bytes


def test_a_plan_that_gets_a_base_says_what_it_is_too_large_for_before_anything_is_fetched(tmp_path: Path) -> None:
    def told(name: str, card: float, role: str = "base") -> tuple[str, ...]:
        known, context = facts(card, ram_gib=32), BaseContext(False, 1, config=find_model(name)[0].config)
        return lacking(base.plan(base.BaseRequest(role=role), known, context), context, known)

    assert told("Qwen3-4B", 24) == ()
    assert told("Qwen2.5-14B", 24) == (), "it is measured at 4 bits"
    measured, served = told("Qwen2.5-14B", 12)
    assert (
        "measure needs 32.7 GiB of VRAM, there is room for 12.0 GiB; try a base such as" in measured
        and "serve needs" in served
    )
    assert told("Qwen2.5-14B", 12, role="teacher") == (), "it only writes"
    assert len(told("Llama-3.3-70B", 24)) >= 3


@table(
    ("name", "card", "bits", "lacks"),
    [
        ("Qwen3-30B-A3B", 23.4, (4, 4, 4), set()),
        ("Qwen3-8B", 23.4, (16, 16, 16), set()),
        ("Qwen3-8B", 15.4, (4, 4, 8), set()),
        ("Qwen3-8B", 7.4, (4, 16, 4), {"measure", "preflight", "train", "serve"}),
        ("Llama-3.2-1B", 0, (16, 16, 4), set()),
    ],
)
def test_what_a_plan_would_do_is_told_with_what_it_lacks(
    name: str, card: float, bits: tuple[int, int, int], lacks: set[str]
) -> None:
    answer = on_card(name, card)
    way, document = answer.decided, to_json(answer)["decided"]
    assert (way.trained, way.measured, way.deployed) == bits and set(way.lacks) == lacks
    assert (
        isinstance(document, dict) and document["fits"] is not bool(lacks) and document["why"].startswith("deploy the")
    )
    assert str(way).startswith(f"a plan trains at {bits[0]} bits, measures at {bits[1]} and deploys at {bits[2]}")
    assert ("does not fit: " in str(way)) == bool(lacks)


def test_a_model_of_few_positions_is_served_within_them_and_an_unknown_one_is_said_to_be_unknown() -> None:
    small = NamedModel("small", {**find_model("Qwen3-4B")[0].config, "max_position_embeddings": 512})
    assert all(task.fits for task in fits(small, facts(24)).of("serve"))
    known = facts(24)
    context = BaseContext(False, 1, config={"model_type": "llama", "hidden_size": 64})
    [line] = lacking(base.plan(base.BaseRequest(), known, context), context, known)
    assert "shows only when it is here" in line and "num_attention_heads" in line


def test_a_card_that_the_installed_builds_leave_alone_is_no_room() -> None:
    with_gpu = with_card(machine(24), 80)
    on_cpu = Facts(with_gpu.home, with_gpu.machine, "", "vllm", cpu_builds=frozenset({SERVING, TRAINING}))
    model, _ = find_model("Qwen2.5-14B")
    for found in fits(model, on_cpu).tasks:
        assert not found.vram_bytes and found.ram_bytes
        assert found.fits == (found.ram_bytes <= 24 * GIB), "80 GiB that nothing computes on are no room"


@pytest.mark.heavy
@table("card", [0, 12, 48])
def test_inspect_says_what_the_plans_say(card: float) -> None:
    known = facts(card, ram_gib=24)
    told = {(fit.work, fit.parameters): fit for fit in report(known).fits}
    for parameters in (1_500_000_000, 7_000_000_000, 32_000_000_000):
        answer = fits(of_size(parameters), known)
        for work, task_, precision in (("train QLoRA, NF4", "train", "nf4"), ("serve, W4A16", "serve", "W4A16")):
            found = task(answer, task_, precision)
            assert (found.fits, found.peak_bytes) == (told[work, parameters].fits, told[work, parameters].needs_bytes)


def test_the_least_that_a_training_needs_depends_on_no_room() -> None:
    roomy, tight = on_card("Qwen3-8B", 24), on_card("Qwen3-8B", 9)
    qlora, least = task(roomy, "train", "nf4"), task(tight, "train", "nf4")
    assert qlora.vram_bytes > 1.9 * qlora.least_bytes and least.vram_bytes < 9 * GIB
    assert least.least_bytes == qlora.least_bytes


def test_a_card_is_not_held_to_the_disk_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = replace(machine(), disk_free_bytes=0)
    monkeypatch.setattr(fits_module, "machine_for_a_step", lambda home: full)
    store = Store(tmp_path / "home")
    there = facts_here(store, vllm=None, card=card_of("4090"))
    assert all(task.fits for task in fits(find_model("Qwen3-4B")[0], there).tasks)
    assert not fits(find_model("Qwen3-4B")[0], facts_here(store, vllm=None)).of("base")[0].fits, "this machine is"


def test_the_experts_of_a_mixture_are_not_trained_for_a_server_that_has_no_room_for_them() -> None:
    """Measured at 4 bits because the user says so: on such a card both would fit."""
    model, known = find_model("Qwen/Qwen3-30B-A3B")[0], facts(140)
    four, sixteen = (fits_module._with_artifacts(model, known, measuring=bits) for bits in ("4", "16"))
    for stage in ("train", "preflight"):
        declared = BY_NAME[stage].load()
        refused = declared.plan(declared.request(load_in_4bit=False), four, None)
        [refusal], [way] = refused.refusals, refused.fitting
        assert "adapters of attention alone; try load_in_4bit=true, or fetch the base with measuring=16" in refusal
        assert way.settings == "load_in_4bit=true"
        assert not declared.plan(declared.request(load_in_4bit=True), four, None).refusals
        alone, experts = (declared.plan(declared.request(), known, None) for known in (four, sixteen))
        assert (alone.request["load_in_4bit"], experts.request["load_in_4bit"]) == (True, False)
        assert not alone.refusals and not experts.refusals
    declared, dense = BY_NAME["train"].load(), find_model("Qwen2.5-14B")[0]
    measured_at_four = fits_module._with_artifacts(dense, known, measuring="4")
    assert not declared.plan(declared.request(), measured_at_four, None).refusals, "a dense model has no experts"


def test_the_reason_for_a_mixture_s_rank_counts_what_trains() -> None:
    model, known = find_model("Qwen/Qwen3-30B-A3B")[0], facts(140)
    attention, experts = (plan_of(step, model, known).reasons["lora_rank"] for step in ("train at 4 bits", "train"))
    assert "an adapter of rank 16 has 13.4 M parameters" in attention
    assert "an adapter of rank 16 has 642.5 M parameters" in experts


def test_a_server_under_adapters_of_a_higher_rank_is_priced_with_them() -> None:
    model, evaluate = find_model("Qwen/Qwen3-30B-A3B")[0], BY_NAME["evaluate"].load()
    known, peaks = fits_module._with_artifacts(model, facts(140), measuring="16"), []
    for rank in (16, 64):
        artifacts = {**known.artifacts, "adapter": expected("adapter", lora_rank=rank)}
        now = replace(known, artifacts=artifacts)
        planned = evaluate.plan(evaluate.request(), now, evaluate.usual_context(now))
        peaks.append(planned.estimate.peak_vram_bytes)
    more = expert_slot_bytes(model.shape, 64) - expert_slot_bytes(model.shape, 16)
    assert peaks[1] - peaks[0] > more > 4 * GIB


FAMILIES = ("llama3", "Llama 3", "meta-llama/Llama-3", "mistral", "gemma", "qwen3", "qwen2.5-coder")


@table("family", FAMILIES)
def test_a_family_is_asked_for_its_size_and_every_size_that_is_named_is_one(family: str) -> None:
    with pytest.raises(SeveralSizes, match=f"which {family}") as asked:
        named_model(family)
    names = re.findall(r"([\w.-]+) \([\d.e+]+B\)", str(asked.value))
    found = [named_model(name) for name in names]
    assert len(names) > 1 and [model and model.name for model in found] == names
    sizes = [model.parameters for model in found if model]
    assert sizes == sorted(set(sizes))


@table("name", ["llama3 8b", "phi-4", "phi", "Qwen/Qwen3-8B", "mistralai/Mistral-Nemo-Instruct-2407", "7b"])
def test_a_name_with_one_meaning_is_not_asked_about(name: str) -> None:
    assert named_model(name) is not None


def test_the_cheapest_way_comes_first() -> None:
    model, _ = find_model("Qwen3-8B")
    refused = fits(model, facts(8)).of("train", precision="bf16")[0].plan
    assert [way.settings for way in refused.fitting] == ["load_in_4bit=true"], "not shorter rows: they lose text"


def test_a_long_conversation_that_does_not_fit_is_answered_with_one_that_does() -> None:
    model, known = find_model("Qwen3-8B")[0], facts(24)
    config = {**model.config, "max_position_embeddings": 131_072}
    model = NamedModel(model.name, config)
    refused = plan_of("deploy W4A16", model, known, context_tokens=131_072)
    [way] = refused.fitting
    context = int(way.settings.removeprefix("context_tokens="))
    assert 2048 < context < 131_072
    assert not plan_of("deploy W4A16", model, known, context_tokens=context).refusals


def test_a_mixture_is_priced_with_its_experts_at_the_bits_they_are_held_at_and_by_its_active_part_in_time() -> None:
    mixture = on_card("Qwen/Qwen3-30B-A3B", 24)
    assert 16 * GIB < task(mixture, "train", "nf4").vram_bytes < 24 * GIB, "published: 17.5 GiB"
    assert task(mixture, "train", "bf16").vram_bytes > 56 * GIB
    assert mixture.active_parameters < 0.15 * mixture.parameters


def test_a_folder_goes_by_its_config_alone(tmp_path: Path) -> None:
    known, _ = find_model("Qwen3-4B")
    (tmp_path / "config.json").write_text(json.dumps(dict(known.config)))
    model, revision = find_model(str(tmp_path))
    assert fits(model, facts(0)).parameters == known.parameters and revision == ""


@table(
    ("text", "told"),
    [('{"model_type": "llama", "architectures": ["LlamaForSequenceClassification"]}', "does not go on with a text"),
     ("[]", "no JSON object"), ("{", "not readable JSON"), ('{"model_type": "bert"}', "does not say its sizes")],
)  # fmt: skip
def test_a_config_that_says_nothing_is_refused(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(BadInput, match=told):
        fits(find_model(str(tmp_path))[0], facts(0))


@table("name", ["", "wat", "a" * 5000, "\0", "~nobody-of-that-name/x", "../../etc", "x/y/z"])
def test_what_is_no_model_is_said_in_a_line(name: str) -> None:
    with pytest.raises(BadInput) as refused:
        find_model(name)
    assert len(str(refused.value)) < 500


def test_the_command_prints_the_documented_document(tmp_path: Path) -> None:
    cli = Tunesmith(tmp_path / "home")
    document = cli.json("fits", "Qwen/Qwen3-8B", "--card", "24")
    assert set(document) >= {"model", "revision", "parameters", "active_parameters", "tasks"}
    for one in document["tasks"]:
        assert set(one) >= {"task", "precision", "fits", "vram_bytes", "ram_bytes", "disk_bytes", "seconds", "try"}
    assert cli("fits", "no-such-model").returncode == 2
    assert cli("fits", "7b", "--card", "-3").returncode == 2
    unknown = cli("fits", "7b", "--card", "rtx 9999")
    assert unknown.returncode == 2 and "no card is known as 'rtx 9999'" in unknown.stderr
    a10 = cli.json("fits", "Qwen2.5-32B", "--card", "a10")
    assert a10["card"] == "A10" and a10["card_note"] == "" and 22.0 < a10["room"]["vram_bytes"] / GIB < 22.2
    assert "left to a desktop" in document["card_note"] and 23.3 < document["room"]["vram_bytes"] / GIB < 23.5
