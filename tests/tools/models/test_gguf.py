"""A GGUF becomes the model folder it came from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.lab_model import SPECIAL, TEMPLATE, vocabulary
from tunesmith.memory.errors import BadInput
from tunesmith.tools.models.base_job import check_template
from tunesmith.tools.models.gguf import build_tokenizer, convert_gguf, hf_names
from tunesmith.tools.models.tensor_values import words_of

pytestmark = pytest.mark.lab

HIDDEN, INNER, LAYERS, HEADS, KV_HEADS = 64, 128, 2, 4, 2


def write_gguf(path: Path, *, output: bool = False, architecture: str = "llama") -> Path:
    """A random model with matrices at 4 and 8 bits, as the bundled ones have them."""
    import gguf
    import numpy as np

    draw = np.random.default_rng(5)
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_context_length(256)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(HIDDEN // HEADS)
    tokens = [*vocabulary(), "ĠĠ"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([3] * len(SPECIAL) + [1] * (len(tokens) - len(SPECIAL)))
    writer.add_token_merges(["Ġ Ġ"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)
    writer.add_chat_template(TEMPLATE)

    def add(name: str, *shape: int, kind: Any = gguf.GGMLQuantizationType.Q4_1) -> None:
        values = draw.normal(0, 0.1, shape).astype(np.float32)
        if len(shape) == 1:
            writer.add_tensor(name, values + 1)
        else:
            writer.add_tensor(name, gguf.quantize(values, kind), raw_dtype=kind)

    add("token_embd.weight", len(tokens), HIDDEN, kind=gguf.GGMLQuantizationType.Q8_0)
    if output:
        add("output.weight", len(tokens), HIDDEN, kind=gguf.GGMLQuantizationType.Q8_0)
    add("output_norm.weight", HIDDEN)
    kv = HIDDEN // HEADS * KV_HEADS
    for n in range(LAYERS):
        for name, shape in {
            "attn_norm": (HIDDEN,),
            "ffn_norm": (HIDDEN,),
            "attn_q": (HIDDEN, HIDDEN),
            "attn_k": (kv, HIDDEN),
            "attn_v": (kv, HIDDEN),
            "attn_output": (HIDDEN, HIDDEN),
            "ffn_gate": (INNER, HIDDEN),
            "ffn_up": (INNER, HIDDEN),
            "ffn_down": (HIDDEN, INNER),
        }.items():
            add(f"blk.{n}.{name}.weight", *shape)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("output", [False, True])
def test_weights_and_logits_equal_transformers_own_loading(tmp_path: Path, output: bool) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    path = write_gguf(tmp_path / "model.gguf", output=output)
    convert_gguf(path, tmp_path / "folder", lambda *_: None)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=path.name, dtype=torch.float32)
    ours = AutoModelForCausalLM.from_pretrained(tmp_path / "folder", dtype=torch.bfloat16)
    expected = theirs.state_dict()
    assert set(expected) == set(ours.state_dict())
    for name, value in ours.state_dict().items():
        assert torch.equal(expected[name].to(torch.bfloat16), value), name
    theirs.load_state_dict({name: value.float() for name, value in ours.state_dict().items()})
    ids = torch.arange(40)[None]
    assert torch.allclose(theirs(ids).logits, ours.float()(ids).logits, atol=1e-5)


def test_tying_keeps_the_output_matrix(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    path = write_gguf(tmp_path / "model.gguf", output=True)
    convert_gguf(path, tmp_path / "free", lambda *_: None)
    convert_gguf(path, tmp_path / "tied", lambda *_: None, tie_embeddings=True)
    free = AutoModelForCausalLM.from_pretrained(tmp_path / "free").state_dict()
    tied = AutoModelForCausalLM.from_pretrained(tmp_path / "tied").state_dict()
    assert torch.equal(tied["model.embed_tokens.weight"], free["lm_head.weight"])
    assert torch.equal(tied["lm_head.weight"], free["lm_head.weight"])


def test_the_folder_stops_where_its_template_ends_a_turn(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    convert_gguf(write_gguf(tmp_path / "model.gguf"), tmp_path / "folder", lambda *_: None)
    _text, stop = check_template(tmp_path / "folder")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "folder")
    assert stop == tokenizer.eos_token == "<|im_end|>"
    assert tokenizer.bos_token == "<|im_start|>"
    generation = json.loads((tmp_path / "folder" / "generation_config.json").read_text())
    assert generation["eos_token_id"] == [2]
    for text in ("order #48213, 1,200.50 €", " a ,b . c 're", "naïve 你好\n\n  42"):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_digits_are_split_before_spaces_are_merged(tmp_path: Path) -> None:
    tokens = [*vocabulary(), "ĠĠ"]
    tokenizer = build_tokenizer(tokens, [3] * 3 + [1] * (len(tokens) - 3), ["Ġ Ġ"], "smollm")
    assert tokenizer.encode("  42").tokens == ["ĠĠ", "4", "2"]


def test_rounding_to_bf16_is_torchs() -> None:
    import numpy as np
    import torch

    values = np.random.default_rng(1).normal(0, 3, 4096).astype(np.float32)
    values[:4] = [0.0, -0.0, 1.00390625, 1.01171875]  # ties, to even
    expected = torch.from_numpy(values).to(torch.bfloat16).view(torch.int16).numpy()
    assert (words_of(values, "BF16").view(np.int16) == expected).all()


@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
def test_every_tensor_has_the_name_that_transformers_gives_it(architecture: str) -> None:
    expected = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
    for n in range(3):
        block, layer = f"blk.{n}", f"model.layers.{n}"
        expected |= {
            f"{block}.attn_norm": f"{layer}.input_layernorm", f"{block}.ffn_norm": f"{layer}.post_attention_layernorm",
            f"{block}.attn_q": f"{layer}.self_attn.q_proj", f"{block}.attn_k": f"{layer}.self_attn.k_proj",
            f"{block}.attn_v": f"{layer}.self_attn.v_proj", f"{block}.attn_output": f"{layer}.self_attn.o_proj",
            f"{block}.ffn_gate": f"{layer}.mlp.gate_proj", f"{block}.ffn_up": f"{layer}.mlp.up_proj",
            f"{block}.ffn_down": f"{layer}.mlp.down_proj",
        }  # fmt: skip
    for part in ("weight", "bias"):
        named = {f"{ours}.{part}": f"{theirs}.{part}" for ours, theirs in expected.items()}
        assert hf_names(architecture, 3, named) == named


def test_what_is_unknown_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="ffn_gate_exps"):
        hf_names("llama", 2, ["blk.0.ffn_gate_exps.weight"])
    with pytest.raises(BadInput, match="2 layers"):
        hf_names("llama", 2, ["blk.2.ffn_gate.weight"])
    with pytest.raises(BadInput, match="falcon"):
        convert_gguf(write_gguf(tmp_path / "x.gguf", architecture="falcon"), tmp_path / "out", lambda *_: None)
    with pytest.raises(BadInput, match="pre-tokenizer"):
        build_tokenizer(vocabulary(), [1] * len(vocabulary()), [], "other")
