"""A dense model folder written as one GGUF file through the `gguf` package, one tensor at a time, and read back.

Covers Llama, Mistral, Qwen2 and Qwen3 with byte-level BPE tokenizers whose pre-tokenizer llama.cpp knows by a name, and
rotary embeddings that are not scaled; `unwritable` names what else a folder has. Matrices are stored in the type that
is asked for, norms and biases in 32 bits, and beside 4 and 5 bits the embeddings and the head in 8, as llama.cpp does.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from tunesmith.memory.errors import BadInput, StepFailed
from tunesmith.tools.core.stage import Frozen
from tunesmith.tools.models.chat_template import template_text, thoughtless
from tunesmith.tools.models.gguf import SPLITS, build_tokenizer, gguf_reader
from tunesmith.tools.models.tensor_file import TensorPlace, read_places, weight_files
from tunesmith.tools.models.tensor_values import floats

if TYPE_CHECKING:
    from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter

    from tunesmith.tools.models.tensor_values import Floats

Progress = Callable[[float, float, str], None]
TensorType = Literal["BF16", "F16", "Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0"]
ARCHITECTURES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}
"""`model_type` → what llama.cpp calls it."""
MOST_ERROR: Mapping[TensorType, float] = {
    "BF16": 0.004, "F16": 0.001, "Q8_0": 0.02, "Q5_1": 0.1, "Q5_0": 0.1, "Q4_1": 0.2, "Q4_0": 0.2,
}  # fmt: skip
"""‖read back − stored‖ ÷ ‖stored‖ of a matrix, at most: twice what rounding to each type leaves of usual weights."""
BITS: Mapping[TensorType, float] = {
    "BF16": 16, "F16": 16, "Q8_0": 8.5, "Q5_1": 6, "Q5_0": 5.5, "Q4_1": 5, "Q4_0": 4.5,
}  # fmt: skip
"""Per weight, scales included."""
_NAMED_SPLITS = {pattern: name for name, pattern in SPLITS.items()}
_NORMAL, _CONTROL, _USER_DEFINED, _UNUSED = 1, 3, 4, 5  # token types of the GGUF specification
_BLOCK = 32
"""Weights of a row that share a scale in every type here."""


class ReadBack(Frozen):
    """What a GGUF file says when it is read again, tensor by tensor."""

    tensors: int
    bytes: int
    largest_error: float
    """‖read back − stored‖ ÷ ‖stored‖ of the worst tensor; 0 where every value is the model's own."""
    largest_error_in: str


class _Tensor(NamedTuple):
    """One tensor as it is to be written."""

    place: TensorPlace
    kind: GGMLQuantizationType
    rope_heads: int
    """Heads whose rows llama.cpp wants interleaved; 0: in order."""


def unwritable(folder: Path) -> str:
    """Why a model folder cannot be written as a GGUF here, with what to do instead; empty where it can."""
    config = json.loads((folder / "config.json").read_text())
    if (family := str(config.get("model_type"))) not in ARCHITECTURES:
        return f"{family} models are not written as GGUF here, only {', '.join(ARCHITECTURES)}; {_INSTEAD}"
    if (kind := rope(config)[1]) not in ("default", ""):
        return f"its rotary embeddings are scaled ({kind}), which is not written here; {_INSTEAD}"
    if config.get("quantization_config"):
        return "it is quantized already; export the merged model, which the GGUF types quantize themselves"
    try:
        _pre_tokenizer(json.loads((folder / "tokenizer.json").read_text()))
    except (OSError, ValueError, LookupError, TypeError, BadInput) as error:  # a tokenizer may be any JSON
        return f"its tokenizer is not written here ({error}); {_INSTEAD}"
    return ""


_INSTEAD = "use format=hub, and llama.cpp's convert_hf_to_gguf.py on that folder"


def rope(config: Mapping[str, object]) -> tuple[float, str]:
    """The base of the rotary embeddings, and how they are scaled; both as old and as new configs say it."""
    settings = config.get("rope_parameters") or config.get("rope_scaling") or {}
    assert isinstance(settings, Mapping)
    # 10,000: transformers' own, where a config is silent
    theta = settings.get("rope_theta") or config.get("rope_theta") or 10_000.0
    return float(str(theta)), str(settings.get("rope_type") or settings.get("type") or "")


def write_gguf(
    folder: Path, out: Path, kind: TensorType, progress: Progress, *, name: str, adds_bos: bool, at_once: bool = False
) -> None:
    """Write the model in `folder` as `out`, which appears only when whole. Raises BadInput for one that is not covered.

    `at_once`: its template leaves thoughts out, whatever it is told: llama.cpp tells each template to think.
    Peak: four copies of the largest matrix in 32 bits.
    """
    from gguf import GGUFWriter
    from gguf.quants import quantize

    if reason := unwritable(folder):
        raise BadInput(reason)
    config = json.loads((folder / "config.json").read_text())
    tensors = _tensors(folder, config, kind)
    partial = out.with_name(f".{out.name}.part")
    writer = GGUFWriter(partial, ARCHITECTURES[config["model_type"]])
    _describe(writer, folder, config, kind, name)
    _write_tokenizer(writer, folder, config, adds_bos)
    if template := template_text(folder):
        writer.add_chat_template(thoughtless(template) if at_once else template)
    for tensor_name, tensor in tensors.items():
        shape, size = _stored_shape(tensor)
        writer.add_tensor_info(tensor_name, shape, _numpy_type(tensor.kind), size, raw_dtype=tensor.kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for done, (tensor_name, tensor) in enumerate(tensors.items()):
        progress(done, len(tensors), f"writing {tensor_name} as {tensor.kind.name}")
        writer.write_tensor_data(quantize(_values(tensor), tensor.kind))
    writer.flush()
    for file in writer.fout or ():
        os.fsync(file.fileno())  # or a power cut leaves the name without the bytes
    writer.close()
    partial.replace(out)


def read_back(folder: Path, file: Path, kind: TensorType, progress: Progress, *, texts: Sequence[str] = ()) -> ReadBack:
    """Hold every tensor of a GGUF, and how its tokenizer splits `texts`, against the model that it was made from.

    Raises StepFailed for a tensor that is missing, has another shape, or is further off than its type explains, and for
    a text that becomes other tokens.
    """
    import numpy as np
    from gguf.quants import dequantize

    expected = _tensors(folder, json.loads((folder / "config.json").read_text()), kind)
    reader = gguf_reader(file)
    _same_tokens(reader, folder, texts)
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    if odd := sorted(expected.keys() ^ tensors.keys()):
        raise StepFailed(f"{file.name} and the model do not hold the same tensors: {odd[0]}; export it again")
    worst, where = 0.0, ""
    for done, (name, tensor) in enumerate(expected.items()):
        progress(done, len(expected), f"reading {name} back")
        wanted = _values(tensor)
        values = dequantize(tensors[name].data, tensors[name].tensor_type).reshape(-1)
        if values.size != wanted.size:
            raise StepFailed(f"{name} in {file.name} has {values.size} values, the model {wanted.size}; export again")
        size = float(np.linalg.norm(wanted))
        error = float(np.linalg.norm(values - wanted.reshape(-1))) / size if size else float(np.abs(values).max())
        if not error <= MOST_ERROR[kind]:
            raise StepFailed(
                f"{name} reads back {error:.1%} off the model's; {kind} explains {MOST_ERROR[kind]:.1%}; report this"
            )
        worst, where = max((worst, where), (error, name))
    return ReadBack(
        tensors=len(tensors), bytes=file.stat().st_size, largest_error=round(worst, 6), largest_error_in=where
    )


def _same_tokens(reader: GGUFReader, folder: Path, texts: Sequence[str]) -> None:
    """Build the tokenizer again from what the file says, as llama.cpp would, and ask it and the model's own."""
    from tokenizers import Tokenizer

    tokens, types, pre = (
        reader.fields[f"tokenizer.ggml.{name}"].contents() for name in ("tokens", "token_type", "pre")
    )
    merges = reader.fields.get("tokenizer.ggml.merges")  # an empty list is not stored
    built = build_tokenizer(tokens, types, merges.contents() if merges else [], pre)
    own = Tokenizer.from_file(str(folder / "tokenizer.json"))
    for text in texts:
        if built.encode(text, add_special_tokens=False).ids != own.encode(text, add_special_tokens=False).ids:
            raise StepFailed(f"the GGUF's tokenizer splits {text[:40]!r} otherwise than the model's; use format=hub")


def _tensors(folder: Path, config: Mapping[str, object], kind: TensorType) -> dict[str, _Tensor]:
    """GGUF name → what is written under it, in the order of the layers."""
    from gguf import MODEL_ARCH, GGMLQuantizationType, get_tensor_name_map

    family = ARCHITECTURES[str(config["model_type"])]
    names = get_tensor_name_map(MODEL_ARCH[family.upper()], int(str(config["num_hidden_layers"])))
    asked = GGMLQuantizationType[kind]
    # Beside 4 and 5 bits embedding and head keep 8, as llama.cpp has it.
    beside = asked if BITS[kind] > 8 else GGMLQuantizationType.Q8_0
    tensors = {}
    for file in weight_files(folder):
        for name, place in read_places(file).items():
            if name.endswith("rotary_emb.inv_freq"):
                continue
            gguf_name = names.get_name(name, try_suffixes=(".weight", ".bias"))
            if gguf_name is None:
                raise BadInput(f"{name} has no name in a GGUF of {family}; {_INSTEAD}")
            of_vocabulary = gguf_name in ("token_embd.weight", "output.weight")
            tensors[gguf_name] = _Tensor(place, _kind(place, beside if of_vocabulary else asked), _heads(name, config))
    return dict(sorted(tensors.items(), key=lambda item: _order(item[0])))


def _kind(place: TensorPlace, asked: GGMLQuantizationType) -> GGMLQuantizationType:
    from gguf import GGMLQuantizationType

    shape = place.spec.shape
    if len(shape) < 2:
        return GGMLQuantizationType.F32
    if shape[-1] % _BLOCK and asked not in (GGMLQuantizationType.BF16, GGMLQuantizationType.F16):
        return GGMLQuantizationType.F16
    return asked


def _order(name: str) -> tuple[int, str]:
    # 1 << 30: head and last norm, after all layers.
    path = name.split(".")
    return (int(path[1]), name) if path[0] == "blk" else (-1 if name.startswith("token") else 1 << 30, name)


def _heads(name: str, config: Mapping[str, object]) -> int:
    """llama.cpp turns neighbouring rows of a Llama's q and k against each other, transformers the halves of a head."""
    if ARCHITECTURES[str(config["model_type"])] != "llama":
        return 0
    heads = int(str(config["num_attention_heads"]))
    if ".q_proj." in name:
        return heads
    return int(str(config.get("num_key_value_heads") or heads)) if ".k_proj." in name else 0


def _values(tensor: _Tensor) -> Floats:
    """A tensor's values in 32 bits, its rows in llama.cpp's order."""
    import numpy as np

    values = floats(tensor.place)
    if tensor.rope_heads:
        half = len(values) // tensor.rope_heads // 2
        shape = values.shape
        values = values.reshape(tensor.rope_heads, 2, half, *shape[1:]).swapaxes(1, 2).reshape(shape)
    return np.ascontiguousarray(values)


def _stored_shape(tensor: _Tensor) -> tuple[tuple[int, ...], int]:
    """A tensor's shape as the writer wants it, in bytes where it is packed, and its size."""
    from gguf import GGMLQuantizationType
    from gguf.quants import quant_shape_to_byte_shape

    shape = tensor.place.spec.shape
    if tensor.kind in (GGMLQuantizationType.F32, GGMLQuantizationType.F16):
        width = 4 if tensor.kind is GGMLQuantizationType.F32 else 2  # bytes of F32 and F16
        return shape, width * math.prod(shape)
    packed = quant_shape_to_byte_shape(shape, tensor.kind)
    return packed, math.prod(packed)


def _numpy_type(kind: GGMLQuantizationType) -> type:
    import numpy as np
    from gguf import GGMLQuantizationType

    return {GGMLQuantizationType.F32: np.float32, GGMLQuantizationType.F16: np.float16}.get(kind, np.uint8)


def _describe(writer: GGUFWriter, folder: Path, config: Mapping[str, object], kind: TensorType, name: str) -> None:
    from gguf import LlamaFileType

    def number(field: str, otherwise: object = None) -> int:
        return int(str(config.get(field) or otherwise))

    heads = number("num_attention_heads")
    head_dim = number("head_dim", number("hidden_size") // heads)
    writer.add_type("model")
    writer.add_name(name)
    writer.add_block_count(number("num_hidden_layers"))
    writer.add_context_length(number("max_position_embeddings"))
    writer.add_embedding_length(number("hidden_size"))
    writer.add_feed_forward_length(number("intermediate_size"))
    writer.add_head_count(heads)
    writer.add_head_count_kv(number("num_key_value_heads", heads))
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_rope_dimension_count(head_dim)
    writer.add_rope_freq_base(rope(config)[0])
    writer.add_layer_norm_rms_eps(float(str(config["rms_norm_eps"])))
    writer.add_vocab_size(number("vocab_size"))
    writer.add_file_type(LlamaFileType[f"MOSTLY_{kind}"])
    writer.add_quantization_version(2)


def _write_tokenizer(writer: GGUFWriter, folder: Path, config: Mapping[str, object], adds_bos: bool) -> None:
    document = json.loads((folder / "tokenizer.json").read_text())
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    ids = dict(document["model"]["vocab"])
    kinds = dict.fromkeys(ids, _NORMAL)
    for token in document["added_tokens"]:
        ids[token["content"]] = token["id"]
        kinds[token["content"]] = _CONTROL if token["special"] else _USER_DEFINED
    size = max(int(str(config["vocab_size"])), max(ids.values()) + 1)
    tokens, types = [f"[PAD{number}]" for number in range(size)], [_UNUSED] * size
    for text, number in ids.items():
        tokens[number], types[number] = text, kinds[text]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(_pre_tokenizer(document))
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    merges = document["model"]["merges"]
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in merges])
    for role, add in (
        ("bos", writer.add_bos_token_id), ("eos", writer.add_eos_token_id), ("pad", writer.add_pad_token_id),
    ):  # fmt: skip
        if (number := ids.get(_content(settings.get(f"{role}_token")))) is not None:
            add(number)
    writer.add_add_bos_token(adds_bos)


def _content(token: object) -> str:
    """A special token's text: a string, or an object that holds it."""
    return str(token.get("content", "")) if isinstance(token, Mapping) else str(token or "")


def _pre_tokenizer(document: Mapping[str, Mapping[str, object]]) -> str:
    """llama.cpp's name for how a byte-level BPE splits a text. Raises BadInput for a way that is not known."""
    model = document["model"]
    if model.get("type") != "BPE" or model.get("byte_fallback"):
        raise BadInput("no byte-level BPE")
    steps = list(_steps(document.get("pre_tokenizer") or {}))
    for part in steps:
        if part.get("type") == "Split" and isinstance(pattern := part.get("pattern"), Mapping):
            if (known_name := _NAMED_SPLITS.get(str(pattern.get("Regex")))) is None:
                raise BadInput(f"it splits by {str(pattern.get('Regex'))[:60]!r}")
            return known_name
    if any(part.get("type") == "Digits" and part.get("individual_digits") for part in steps):
        return "smollm"
    raise BadInput("its pre-tokenizer has no name in llama.cpp that is known here")


def _steps(part: Mapping[str, object]) -> Iterator[Mapping[str, object]]:
    """A pre-tokenizer's own parts, or itself."""
    inner = part.get("pretokenizers")
    if isinstance(inner, list):
        for one in inner:
            yield from _steps(one)
    else:
        yield part
