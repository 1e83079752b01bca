"""A GGUF file turned into a clean bf16 safetensors model folder, without torch and one tensor at a time.

What it promises: the weights equal transformers' own GGUF loading bit for bit after the cast to bf16, and the tokenizer
is the one the model was trained with. transformers' loader gets three things of the latter wrong for these files: it
takes bos for eos, it drops the digit splitting of SmolLM2's pre-tokenizer, and it leaves `<tool_call>` out of Qwen's
added tokens.

Covers the `llama` and `qwen2` architectures with byte-level BPE tokenizers; anything else raises BadInput.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tunesmith.memory.errors import BadInput
from tunesmith.memory.files import atomic_write
from tunesmith.memory.json_values import as_int
from tunesmith.tools.models.tensor_file import SINGLE_NAME, TensorFileWriter, TensorSpec
from tunesmith.tools.models.tensor_values import words_of

if TYPE_CHECKING:
    from gguf import GGUFReader, ReaderTensor
    from numpy import generic
    from numpy.typing import DTypeLike, NDArray
    from tokenizers import Tokenizer

Progress = Callable[[float, float, str], None]

# Of the many names that gguf's map knows a tensor by, those of transformers' llama and qwen2.
_HF_NAME = re.compile(
    r"lm_head|model\.(embed_tokens|norm|layers\.\d+\."
    r"(input_layernorm|post_attention_layernorm|self_attn\.[qkvo]_proj|mlp\.(gate|up|down)_proj))"
)
_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|%s| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPLITS = {"qwen2": _SPLIT % r"\p{N}", "llama-bpe": _SPLIT % r"\p{N}{1,3}"}
"""llama.cpp's name of a pre-tokenizer → the expression that it splits by; digits one by one, or up to three."""
_CONTROL, _USER_DEFINED, _UNUSED = 3, 4, 5  # token types of the GGUF specification


def convert_gguf(gguf_path: Path, out_dir: Path, progress: Progress, *, tie_embeddings: bool | None = None) -> None:
    """Write weights, config, tokenizer, chat template and generation config of `gguf_path` into `out_dir`.

    `tie_embeddings` ties the input embedding to the output matrix where the file carries the same matrix twice,
    as quantizers do, the output one at more bits; None keeps what the file has.
    """
    reader = gguf_reader(gguf_path)
    fields = {name: field.contents() for name, field in reader.fields.items() if not name.startswith("GGUF.")}
    architecture = fields.get("general.architecture")
    if architecture not in ("llama", "qwen2") or fields.get("tokenizer.ggml.model") != "gpt2":
        raise BadInput(
            f"{gguf_path}: GGUF of architecture {architecture!r}; llama and qwen2 with BPE tokenizers are known"
        )
    has_output = any(tensor.name == "output.weight" for tensor in reader.tensors)
    tied = bool(tie_embeddings) or not has_output
    config = _config(fields, tied)
    out_dir.mkdir(parents=True, exist_ok=True)
    _write_weights(reader, config, out_dir / SINGLE_NAME, progress, drop_input=tied and has_output)
    _write_json(out_dir / "config.json", config)
    _write_json(out_dir / "generation_config.json", _generation_config(fields, config))
    _write_tokenizer(fields, out_dir)


def gguf_reader(path: Path) -> GGUFReader:
    """A GGUF file, read; its tensors stay in the file until they are looked at.

    gguf's own reader slices a memmap for every value: of a vocabulary of 49,000 that takes 4.3 s, and this 1.2.
    """
    import numpy as np
    from gguf import GGUFReader

    class Reader(GGUFReader):
        def _get(
            self, offset: int, dtype: DTypeLike, count: int = 1, override_order: Literal["I", "S", "<"] | None = None
        ) -> NDArray[generic]:
            kind = np.dtype(dtype).newbyteorder(self.byte_order if override_order is None else override_order)
            return np.frombuffer(self.data, kind, int(count), int(offset))

    return Reader(path)


def hf_names(architecture: str, layers: int, gguf_names: Iterable[str]) -> dict[str, str]:
    """GGUF → transformers name of each tensor of a llama or qwen2 model. Raises BadInput for one that has none."""
    from gguf import MODEL_ARCH, get_tensor_name_map

    known = get_tensor_name_map(MODEL_ARCH[architecture.upper()], layers).mapping
    stems = {stem: name for name, (_, stem) in known.items() if _HF_NAME.fullmatch(name)}
    names = {}
    for gguf_name in gguf_names:
        stem, _, part = gguf_name.rpartition(".")
        if stem not in stems:
            raise BadInput(f"GGUF tensor {gguf_name!r} has no place in a {architecture} model of {layers} layers")
        names[gguf_name] = f"{stems[stem]}.{part}"
    return names


def _config(fields: Mapping[str, Any], tied: bool) -> dict[str, object]:
    arch = fields["general.architecture"]
    hidden, heads = fields[f"{arch}.embedding_length"], fields[f"{arch}.attention.head_count"]
    config = {
        "architectures": ["LlamaForCausalLM" if arch == "llama" else "Qwen2ForCausalLM"],
        "model_type": arch,
        "hidden_size": hidden,
        "intermediate_size": fields[f"{arch}.feed_forward_length"],
        "num_hidden_layers": fields[f"{arch}.block_count"],
        "num_attention_heads": heads,
        "num_key_value_heads": fields[f"{arch}.attention.head_count_kv"],
        "max_position_embeddings": fields[f"{arch}.context_length"],
        # Stored as float32: 9.9999997e-06 is 1e-05.
        "rms_norm_eps": float(f"{fields[f'{arch}.attention.layer_norm_rms_epsilon']:.6g}"),
        "rope_theta": fields[f"{arch}.rope.freq_base"],
        "vocab_size": len(fields["tokenizer.ggml.tokens"]),
        "tie_word_embeddings": tied,
        "hidden_act": "silu",
        "attention_dropout": 0.0,
        "bos_token_id": fields["tokenizer.ggml.bos_token_id"],
        "eos_token_id": fields["tokenizer.ggml.eos_token_id"],
        "pad_token_id": fields["tokenizer.ggml.padding_token_id"],
        "initializer_range": 0.02,  # a GGUF does not have it; nothing is initialised with it here
        "use_cache": True,
        "dtype": "bfloat16",
        # Without a version ≥ 5 transformers takes a large BPE vocabulary for a Mistral with a broken regex.
        "transformers_version": "5.0.0",
    }
    if arch == "llama":
        config |= {"head_dim": hidden // heads, "attention_bias": False, "mlp_bias": False}
    else:
        config |= {"use_sliding_window": False}
    return config


def _generation_config(fields: Mapping[str, Any], config: dict[str, object]) -> dict[str, object]:
    """Only stop and padding ids: sampling is the caller's to say, and vLLM would take defaults from here."""
    eos = fields["tokenizer.ggml.eos_token_id"]
    pad = fields["tokenizer.ggml.padding_token_id"]
    stops = [eos] if pad == eos else [eos, pad]
    return {"bos_token_id": config["bos_token_id"], "eos_token_id": stops, "pad_token_id": pad}


def _write_weights(
    reader: GGUFReader, config: dict[str, object], path: Path, progress: Progress, *, drop_input: bool
) -> None:
    stored = {tensor.name: tensor for tensor in reader.tensors}
    names = hf_names(str(config["model_type"]), as_int(config["num_hidden_layers"]), stored)
    tensors = {name: stored[gguf_name] for gguf_name, name in names.items()}
    if drop_input:
        tensors["model.embed_tokens.weight"] = tensors.pop("lm_head.weight")
    # GGUF lists the innermost dimension first.
    specs = [
        (name, TensorSpec("BF16", tuple(int(n) for n in reversed(tensors[name].shape)))) for name in sorted(tensors)
    ]
    with TensorFileWriter(path, specs) as writer:
        for done, (name, spec) in enumerate(specs):
            progress(done, len(specs), f"converting {name}")
            writer.write(name, b"".join(_bf16_chunks(tensors[name], spec.shape, _rope_heads(name, config))))
    progress(len(specs), len(specs), "weights converted")


def _rope_heads(name: str, config: dict[str, object]) -> int:
    """How many heads a q or k projection's rows interleave in the file (llama only); 0 when rows are in order."""
    if config["model_type"] != "llama":
        return 0
    if ".q_proj." in name:
        return as_int(config["num_attention_heads"])
    return as_int(config["num_key_value_heads"]) if ".k_proj." in name else 0


def _bf16_chunks(tensor: ReaderTensor, shape: tuple[int, ...], rope_heads: int) -> Iterator[bytes]:
    """The tensor's bf16 bytes, dequantized in blocks of rows so that fp32 copies stay small."""
    from gguf.quants import dequantize

    rows = len(tensor.data)
    # A tensor whose rows must be reordered goes in one piece; they are small.
    # Four million values at a time: 16 MB in fp32.
    step = rows if rope_heads or tensor.data.ndim == 1 else max(1, (1 << 22) // shape[-1])
    for start in range(0, rows, step):
        values = dequantize(tensor.data[start : start + step], tensor.tensor_type)  # fp32 (rows, in)
        if rope_heads:
            half = shape[0] // rope_heads // 2
            # llama.cpp puts the two halves of a rotary pair side by side, transformers half a head apart.
            values = values.reshape(rope_heads, half, 2, *shape[1:]).swapaxes(1, 2).reshape(shape)
        yield words_of(values, "BF16").tobytes()


def _write_tokenizer(fields: Mapping[str, Any], out_dir: Path) -> None:
    tokens, types = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    tokenizer = build_tokenizer(tokens, types, fields["tokenizer.ggml.merges"], fields["tokenizer.ggml.pre"])
    atomic_write(out_dir / "tokenizer.json", tokenizer.to_str(pretty=False))

    def token(name: str) -> str:
        return str(tokens[fields[f"tokenizer.ggml.{name}_token_id"]])

    settings = {
        # The generic class keeps tokenizer.json as it is; model-named classes rebuild parts of it.
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": token("bos"),
        "eos_token": token("eos"),
        "pad_token": token("padding"),
        "model_max_length": fields[f"{fields['general.architecture']}.context_length"],
        "clean_up_tokenization_spaces": False,
        "add_bos_token": False,
    }
    if "tokenizer.ggml.unknown_token_id" in fields:
        settings["unk_token"] = token("unknown")
    _write_json(out_dir / "tokenizer_config.json", settings)
    atomic_write(out_dir / "chat_template.jinja", fields["tokenizer.chat_template"])


def build_tokenizer(tokens: list[str], types: list[int], merges: list[str], pre: str) -> Tokenizer:
    """The byte-level BPE tokenizer of a GGUF's vocabulary; raises BadInput for an unknown pre-tokenizer name."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors
    from tokenizers.models import BPE

    last = max(i for i, kind in enumerate(types) if kind != _UNUSED)  # the file pads the vocabulary to the matrix
    vocabulary = {tokens[i]: i for i in range(last + 1)}
    tokenizer = Tokenizer(BPE(vocabulary, [(left, right) for left, right in (merge.split(" ") for merge in merges)]))
    if pre == "smollm":
        split: list[pre_tokenizers.PreTokenizer] = [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    elif pre in SPLITS:
        if pre == "qwen2":
            tokenizer.normalizer = normalizers.NFC()
        split = [
            pre_tokenizers.Split(Regex(SPLITS[pre]), "isolated"),
            pre_tokenizers.ByteLevel(False, use_regex=False),
        ]
    else:
        raise BadInput(f"GGUF pre-tokenizer {pre!r} is unknown; smollm, {' and '.join(SPLITS)} are known")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(split)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    added = [i for i in range(last + 1) if types[i] in (_CONTROL, _USER_DEFINED)]
    tokenizer.add_tokens([AddedToken(tokens[i], normalized=False, special=types[i] == _CONTROL) for i in added])
    return tokenizer


def _write_json(path: Path, value: dict[str, object]) -> None:
    atomic_write(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")
