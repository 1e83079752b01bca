"""Somebody else's quantized checkpoint: the base's own passes however it is stored, any other is found by name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.lab_model import write_rows, write_tiny_model
from tests.fixtures.quantized_checkpoints import as_gptq, described, fine_tuned, rewrite, rounded, tensors
from tunesmith.tools.export import rounding_recipes
from tunesmith.tools.export.audit import CARRIED, Audit
from tunesmith.tools.export.audit_taken import audit_taken
from tunesmith.tools.export.quantize_job import chosen_group_size, quantize_model
from tunesmith.tools.models.packed_weights import unpack_base
from tunesmith.tools.models.packing import Packing

pytestmark = pytest.mark.lab

DOWN, QUERY = "model.layers.1.mlp.down_proj", "model.layers.0.self_attn.q_proj"
LATER_QUERY = "model.layers.1.self_attn.q_proj"
NORM, EMBEDDINGS = "model.layers.1.input_layernorm.weight", "model.embed_tokens.weight"


def audited(folder: Path, base: Path) -> Audit:
    """Of a checkpoint with the base's text side, as it is taken."""
    for name in CARRIED:
        if (base / name).is_file():
            shutil.copyfile(base / name, folder / name)
    return audit_taken(folder, base, Packing.of(json.loads((folder / "config.json").read_text()), "it"))


@pytest.fixture(scope="module")
def gptq(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return as_gptq(tiny_llama, tmp_path_factory.mktemp("gptq") / "it")


@pytest.fixture(scope="module")
def three_groups(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base whose rows have two groups and three, and beside it that base rounded."""
    base = write_tiny_model(tmp_path_factory.mktemp("three") / "base", intermediate_size=96)
    rounded(base, base.with_name("q"))
    return base


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3_moe", "mixtral"])
def test_a_checkpoint_of_the_base_passes_and_all_of_its_layers_are_decoded(kind: str, tmp_path: Path) -> None:
    base = write_tiny_model(tmp_path / "base", kind)
    audit = audited(rounded(base, tmp_path / "q"), base)
    assert not audit.faults, audit.refusal
    assert audit.decoded == audit.quantized_layers >= 14 and 0.05 < (audit.weight_error or 0) < 0.2


@pytest.mark.parametrize("rounding", ["gptq", "autoround"])
def test_one_that_was_calibrated_passes_too(
    rounding: Any, tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rounding_recipes, "ROUNDING_STEPS", 10)
    config = json.loads((tiny_llama / "config.json").read_text())
    quantize_model(
        tiny_llama, write_rows(tmp_path / "rows.jsonl", 12), tmp_path / "q", scheme="W4A16", samples=8, keep=(),
        max_seq_len_tokens=64, seed=1, group_size=chosen_group_size(config, "W4A16", 32), progress=lambda *_: None,
        rounding=rounding,
    )  # fmt: skip
    audit = audited(tmp_path / "q", tiny_llama)
    assert not audit.faults and audit.quantized_layers == 14, audit.refusal


def test_gptqs_own_format_in_fp16_passes_for_a_base_in_bf16(gptq: Path, tiny_llama: Path) -> None:
    audit = audited(gptq, tiny_llama)
    assert not audit.faults and audit.decoded == 14, audit.refusal
    assert tensors(gptq)[EMBEDDINGS].dtype != tensors(tiny_llama)[EMBEDDINGS].dtype


def test_gptqs_own_format_decodes_to_what_its_own_code_makes_of_it(
    gptq: Path, tiny_llama: Path, tmp_path: Path
) -> None:
    import torch
    from auto_round_extension.torch.qlinear_torch_zp import QuantLinear

    made, stored = tensors(unpack_base(tiny_llama, gptq, tmp_path / "unpacked")), tensors(gptq)
    for name in (DOWN, QUERY):
        outputs, inputs = made[f"{name}.weight"].shape
        layer = QuantLinear(4, 32, inputs, outputs, bias=False, g_idx=True)
        layer.load_state_dict({end: stored[f"{name}.{end}"] for end in layer.state_dict()})
        theirs = layer(torch.eye(inputs)).T
        # They multiply in fp16; a neighbouring code differs by an eighth or more.
        assert torch.allclose(theirs, made[f"{name}.weight"].float(), rtol=2**-7, atol=0)


def test_inputs_may_be_sorted_before_they_are_grouped(gptq: Path, tiny_llama: Path, tmp_path: Path) -> None:
    """As desc_act leaves it: the same codes, the groups of the inputs in another order."""
    import torch

    def sort(now: dict[str, Any]) -> None:
        order = torch.randperm(128)
        weight = tensors(tiny_llama)[f"{DOWN}.weight"].float()
        groups = torch.empty(128, dtype=torch.int32)
        groups[order] = torch.arange(128, dtype=torch.int32) // 32
        scales = torch.stack([weight[:, groups == one].abs().amax(1) / 7.5 for one in range(4)]).half()  # (groups, out)
        codes = (weight / scales.float()[groups.long()].T).round().clamp(-8, 7).to(torch.int64).T + 8  # (in, out)
        words = sum(codes[at::8] << (4 * at) for at in range(8))
        now[f"{DOWN}.qweight"] = ((words + 2**31) % 2**32 - 2**31).to(torch.int32)
        now |= {f"{DOWN}.scales": scales, f"{DOWN}.g_idx": groups}

    folder = rewrite(shutil.copytree(gptq, tmp_path / "q"), sort)
    assert not audited(described(folder, desc_act=True), tiny_llama).faults
    told = audited(described(folder, desc_act=False), tiny_llama).refusal  # then vLLM does not read the order
    assert DOWN in told, told


# --- what must not pass: each a change of a whole checkpoint, and the tensor that is named


def damaged_scale(now: dict[str, Any]) -> None:
    now[f"{DOWN}.weight_scale"][3, 1] *= 1.25


def scale_of_nothing(now: dict[str, Any]) -> None:
    now[f"{DOWN}.weight_scale"][3, 1] = 0


def infinite_scale(now: dict[str, Any]) -> None:
    now[f"{DOWN}.weight_scale"][3, 1] = float("inf")


def negative_scale(now: dict[str, Any]) -> None:
    now[f"{DOWN}.weight_scale"][3, 1] *= -1


def damaged_code(now: dict[str, Any]) -> None:
    now[f"{DOWN}.weight_packed"][7, 2] ^= 0x400


def layers_exchanged(now: dict[str, Any]) -> None:
    for end in ("weight_packed", "weight_scale"):
        one, two = f"{DOWN}.{end}", f"{DOWN.replace('.1.', '.0.')}.{end}"
        now[one], now[two] = now[two], now[one]


def one_embedding(now: dict[str, Any]) -> None:
    now[EMBEDDINGS][5, 5] += 1


def tensor_left_out(now: dict[str, Any]) -> None:
    del now[NORM]


def cache_scale(now: dict[str, Any]) -> None:
    now["model.layers.0.self_attn.k_scale"] = now[NORM][:1].clone()


def other_head(now: dict[str, Any]) -> None:
    now["lm_head.weight"] = now[EMBEDDINGS] * 2


def left_whole(now: dict[str, Any]) -> None:
    for end in ("weight_packed", "weight_scale", "weight_shape"):
        del now[f"{QUERY}.{end}"]
    now[f"{QUERY}.weight"] = now[EMBEDDINGS][:64].clone()


@pytest.mark.parametrize(
    ("change", "where", "figure"),
    [
        (damaged_scale, f"{DOWN}.weight_scale", "is 1.25 times what the base's largest weight makes it in row 3, "),
        (scale_of_nothing, f"{DOWN}.weight_scale", "0.00 times"),
        (infinite_scale, f"{DOWN}.weight_scale", "1 values"),
        (negative_scale, f"{DOWN}.weight_scale", "-1.0"),
        (damaged_code, f"{DOWN}.weight_packed", "steps in row 7, group 0, where all others are the nearest"),
        (layers_exchanged, f"{DOWN}.weight_packed", "off by 1"),
        (one_embedding, EMBEDDINGS, "1 of 16576 differ, by up to 1"),
        (tensor_left_out, NORM, "not there"),
        (cache_scale, "model.layers.0.self_attn.k_scale", "no such tensor"),
        (other_head, "lm_head.weight", "16576 differ"),
        (left_whole, f"{QUERY}.weight", "the config does not say so"),
    ],
)  # fmt: skip
def test_what_is_not_the_base_is_found_by_name(
    change: Callable[[dict[str, Any]], None], where: str, figure: str, three_groups: Path, tmp_path: Path
) -> None:
    folder = rewrite(shutil.copytree(three_groups.with_name("q"), tmp_path / "q"), change)
    told = [str(fault) for fault in audited(folder, three_groups).faults]
    assert any(where in line and figure in line for line in told), told


def test_the_untouched_one_of_these_passes_with_its_head_and_without(three_groups: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(three_groups.with_name("q"), tmp_path / "q")
    assert not audited(folder, three_groups).faults
    rewrite(folder, lambda now: now.update({"lm_head.weight": now[EMBEDDINGS].clone()}))
    assert not audited(folder, three_groups).faults


@pytest.mark.parametrize("share", [0.01, 0.05])
@pytest.mark.parametrize("packed", [rounded, as_gptq])
def test_another_fine_tune_does_not_pass_though_its_error_is_that_of_rounding(
    packed: Callable[[Path, Path], Path], share: float, tiny_llama: Path, tmp_path: Path
) -> None:
    other = fine_tuned(tiny_llama, tmp_path / "other", f"{DOWN}.weight", share=share)
    audit = audited(packed(other, tmp_path / "q"), tiny_llama)
    assert len(audit.faults) == 1 and DOWN in audit.faults[0].where, audit.refusal
    assert "larger scales than the base's" in audit.refusal and (audit.weight_error or 1) < 0.2


def test_norms_that_scales_were_folded_into_do_not_pass(tiny_llama: Path, tmp_path: Path) -> None:
    """What AWQ leaves: the same function at 16 bits, and other inputs of the layers that an adapter changes."""
    import torch

    def fold(now: dict[str, Any]) -> None:
        scales = torch.linspace(0.5, 2, 64)
        now[NORM] = (now[NORM].float() / scales).to(now[NORM].dtype)
        for name in ("q_proj", "k_proj", "v_proj"):
            weight = f"model.layers.1.self_attn.{name}.weight"
            now[weight] = (now[weight].float() * scales).to(now[weight].dtype)

    folded = rewrite(shutil.copytree(tiny_llama, tmp_path / "folded"), fold)
    told = [str(fault) for fault in audited(rounded(folded, tmp_path / "q"), tiny_llama).faults]
    assert any(NORM in line and "AWQ" in line for line in told) and any(LATER_QUERY in line for line in told)


def test_zero_points_other_than_the_middle_do_not_pass(gptq: Path, tiny_llama: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(gptq, tmp_path / "q")
    rewrite(folder, lambda now: now[f"{QUERY}.qzeros"].view(-1)[:1].add_(1))
    assert "1 words of zero points other than 8" in audited(folder, tiny_llama).refusal
