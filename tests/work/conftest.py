"""Tiny models and a tokenizer made from scratch: real architectures, random weights, seconds to train."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def vocabulary() -> list[str]:
    """Special tokens and the 256 bytes: enough to write anything."""
    from tokenizers import pre_tokenizers

    return SPECIAL + sorted(pre_tokenizers.ByteLevel.alphabet())


def write_tokenizer(folder: Path) -> None:
    from tunesmith.tools.work.gguf import build_tokenizer

    tokens = vocabulary()
    types = [3] * len(SPECIAL) + [1] * (len(tokens) - len(SPECIAL))
    build_tokenizer(tokens, types, [], "smollm").save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|im_start|>",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "chat_template.jinja").write_text(TEMPLATE)


def write_tiny_model(folder: Path, kind: str = "llama", *, shard_size: str = "50GB", **changes: Any) -> Path:
    """A two-layer model of an architecture in `folder`, in bf16, with tokenizer and template."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    size = {
        "vocab_size": len(vocabulary()),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "tie_word_embeddings": True,
    }
    if kind in ("qwen3_moe", "qwen2_moe"):
        size |= {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64, "decoder_sparse_step": 1}
        size |= {"head_dim": 16} if kind == "qwen3_moe" else {"shared_expert_intermediate_size": 64}
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **(size | changes))).to(torch.bfloat16)
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder, max_shard_size=shard_size)
    write_tokenizer(folder)
    return folder


def write_rows(path: Path, count: int) -> Path:
    """Rows with a shared instruction and answers of differing length."""
    lines = []
    for n in range(count):
        prompt = [{"role": "user", "content": f"Say the number:\n\n{n * 7}"}]
        lines.append(
            json.dumps(
                {"prompt": prompt, "completion": [{"role": "assistant", "content": f"#{n * 7}" + "!" * (n % 3)}]}
            )
        )
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("tiny") / "llama")


@pytest.fixture(scope="session")
def rows_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("rows") / "train.jsonl", 24)
