"""The least that is a chat model: a right config, a byte-level tokenizer with a template, and weights of any size."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "vocab_size": 258,
    "dtype": "bfloat16",
    "eos_token_id": 257,
}
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_SPECIAL = ("<|im_start|>", "<|im_end|>")


def make_tiny_model(folder: Path, *, weight_bytes: int = 64, **config: Any) -> Path:
    """Write the folder. Its one tensor is sparse and stands for the weights: it is copied and hashed, never run."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({**CONFIG, **config}))
    (folder / "tokenizer.json").write_text(json.dumps(_tokenizer()))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": _SPECIAL[1], "pad_token": _SPECIAL[1]})
    )
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    entry = {"dtype": "BF16", "shape": [weight_bytes // 2], "data_offsets": [0, weight_bytes]}
    header = json.dumps({"model.embed_tokens.weight": entry}).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + weight_bytes)
    return folder


def _tokenizer() -> dict[str, Any]:
    """A byte-level BPE without merges: 256 bytes and two special tokens."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {byte: chr(byte) for byte in printable}
    odd = (byte for byte in range(256) if byte not in letters)
    letters |= {byte: chr(256 + index) for index, byte in enumerate(odd)}
    vocab = {letters[byte]: byte for byte in range(256)} | {token: 256 + i for i, token in enumerate(_SPECIAL)}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    special = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": vocab[token], "content": token, **special} for token in _SPECIAL],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {"type": "BPE", "vocab": vocab, "merges": [], "dropout": None, "unk_token": None},
    }
