"""Train the reader from the sentences in intents/: `make words`, some minutes on two cores.

Low-rank matrices beside the last layers of the encoder and one softmax layer are learned together, by AdamW with a
linear decay; the layers below stay as they are and are computed once. One sentence in five is left out of a first
training, which prints what it gets right of them and sets the threshold from which the head answers by itself; a second
one learns from all. The same sentences on the same machine give the same head.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from tunesmith.agent.words.encoder import MATRICES, WIDTH, Encoder, Layer
from tunesmith.agent.words.intent import canonical, flags_of, kind_of, packed
from tunesmith.agent.words.slots import slots_of
from tunesmith.agent.words.training import fingerprint, intents, own_words, source

_FROZEN = 10
"""Layers that stay as they are."""
_RANK, _BATCH, _EPOCHS = 16, 32, 6
_RATE, _HEAD_RATE, _DROPOUT, _SMOOTHING = 1.5e-3, 3e-3, 0.1, 0.05
_WRONG_MOST = 0.02
"""Of what the head answers by itself, at most so much may be of another kind."""
_LEFT_OUT = 5


@dataclass(frozen=True, slots=True)
class _Data:
    """Every sentence: what the frozen layers make of it, the flags of its slots, its label."""

    said: list[str]
    states: list[NDArray[np.float16]]
    flags: torch.Tensor
    y: torch.Tensor
    labels: list[str]

    @property
    def fold(self) -> NDArray[np.int64]:
        """Which of five parts each sentence belongs to, by its own words."""
        return np.array([int(hashlib.sha256(one.encode()).hexdigest(), 16) % _LEFT_OUT for one in self.said])


def _read(encoder: Encoder, cache: Path | None) -> _Data:
    sentences = intents()
    labels = sorted(sentences)
    said = [(label, one) for label in labels for one in sentences[label]]
    slots = [slots_of(one) for _, one in said]
    plain = [canonical(one) for one in slots]
    known = dict(np.load(cache)) if cache and cache.exists() else {}
    keys = [hashlib.sha256(one.encode()).hexdigest()[:24] for one in plain]
    lacking = {key: text for key, text in zip(keys, plain, strict=True) if key not in known}
    for key, states in zip(lacking, encoder.hidden(list(lacking.values()), _FROZEN), strict=True):
        known[key] = states.astype(np.float16)
    if cache and lacking:
        np.savez(cache, **known)
    flags = torch.from_numpy(np.stack([flags_of(one) for one in slots]))
    y = torch.tensor([labels.index(label) for label, _ in said])
    return _Data([one for _, one in said], [known[key] for key in keys], flags, y, labels)


class _Low(nn.Module):
    """A frozen matrix with a low-rank one beside it."""

    def __init__(self, weight: NDArray[np.float32], bias: NDArray[np.float32]) -> None:
        super().__init__()
        self.register_buffer("weight", torch.from_numpy(np.array(weight)))
        self.register_buffer("bias", torch.from_numpy(np.array(bias)))
        inputs, outputs = weight.shape
        self.a = nn.Parameter(torch.randn(_RANK, inputs) / inputs**0.5)
        self.b = nn.Parameter(torch.zeros(outputs, _RANK))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        low = functional.dropout(x, _DROPOUT, self.training) @ self.a.T @ self.b.T
        return x @ self.weight + self.bias + low


class _Layer(nn.Module):
    """One of the encoder's last layers, as it computes them."""

    def __init__(self, layer: Layer, heads: int, eps: float) -> None:
        super().__init__()
        thirds = zip(np.split(layer.qkv[0], 3, axis=1), np.split(layer.qkv[1], 3), strict=True)
        own = [*thirds, layer.ao, layer.fi, layer.fo]
        self.parts = nn.ModuleDict({name: _Low(*one) for name, one in zip(MATRICES, own, strict=True)})
        self.norms = [tuple(torch.from_numpy(np.array(x)) for x in norm) for norm in (layer.norm, layer.last_norm)]
        self.heads, self.eps = heads, eps

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        count, length, _ = x.shape
        q, k, v = (self.parts[n](x).view(count, length, self.heads, -1).transpose(1, 2) for n in ("q", "k", "v"))
        attended = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        attended = attended.transpose(1, 2).reshape(count, length, WIDTH)
        x = self._normed(x + self._dropped(self.parts["ao"](attended)), 0)
        inner = functional.gelu(self.parts["fi"](x))
        return self._normed(x + self._dropped(self.parts["fo"](inner)), 1)

    def _dropped(self, x: torch.Tensor) -> torch.Tensor:
        return functional.dropout(x, _DROPOUT, self.training)

    def _normed(self, x: torch.Tensor, which: int) -> torch.Tensor:
        weight, bias = self.norms[which]
        return functional.layer_norm(x, (WIDTH,), weight, bias, self.eps)


class _Model(nn.Module):
    """The last layers with the softmax layer behind them."""

    def __init__(self, encoder: Encoder, data: _Data) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_Layer(x, encoder.heads, encoder.eps) for x in encoder.layers[_FROZEN:])
        self.head = nn.Linear(WIDTH + data.flags.shape[1], len(data.labels))
        nn.init.zeros_(self.head.weight)
        self._data = data

    def forward(self, rows: NDArray[np.int64]) -> torch.Tensor:
        states = [self._data.states[i] for i in rows]
        longest = max(len(one) for one in states)
        x = torch.zeros(len(rows), longest, WIDTH)
        there = torch.zeros(len(rows), longest, dtype=torch.bool)
        for i, one in enumerate(states):
            x[i, : len(one)] = torch.from_numpy(one.astype(np.float32))
            there[i, : len(one)] = True
        for layer in self.layers:
            x = layer(x, there[:, None, None, :])
        mean = (x * there[..., None]).sum(1) / there.sum(1, keepdim=True)
        mean = functional.dropout(mean, _DROPOUT, self.training)
        scores: torch.Tensor = self.head(torch.cat([mean, self._data.flags[rows]], dim=1))
        return scores


def _trained(encoder: Encoder, data: _Data, rows: NDArray[np.int64], epochs: int) -> _Model:
    torch.manual_seed(0)
    model, order = _Model(encoder, data), np.random.default_rng(0)
    rates = (_RATE, _HEAD_RATE)
    groups = [{"params": model.layers.parameters()}, {"params": model.head.parameters()}]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.01)
    steps, step, began = epochs * -(-len(rows) // _BATCH), 0, time.monotonic()
    for epoch in range(epochs):
        total = 0.0
        for batch in _batches(data, order.permutation(rows), order):
            left = min(1.0, (step + 1) / 100) * max(1 - step / steps, 0.02)
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * left
            loss = functional.cross_entropy(model(batch), data.y[batch], label_smoothing=_SMOOTHING)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            total, step = total + loss.item() * len(batch), step + 1
        print(f"epoch {epoch + 1}: loss {total / len(rows):.3f}, {time.monotonic() - began:.0f} s", flush=True)
    model.eval()
    return model


def _batches(data: _Data, rows: NDArray[np.int64], order: np.random.Generator) -> list[NDArray[np.int64]]:
    """Batches of sentences of about one length, in any order."""
    found = []
    for start in range(0, len(rows), 32 * _BATCH):
        part = sorted(rows[start : start + 32 * _BATCH], key=lambda i: len(data.states[i]))
        found += [np.array(part[at : at + _BATCH]) for at in range(0, len(part), _BATCH)]
    order.shuffle(found)
    return found


def _threshold(model: _Model, data: _Data, rows: NDArray[np.int64], show: bool) -> float:
    """From which probability of a kind the head is right often enough, on sentences that it has not seen."""
    with torch.no_grad():
        likely = np.concatenate([model(rows[i : i + 64]).softmax(1).numpy() for i in range(0, len(rows), 64)])
    kinds = [kind_of(label) for label in data.labels]
    names = sorted(set(kinds))
    by_kind = likely @ np.array([[kind == name for name in names] for kind in kinds], np.float32)
    wanted = np.array([names.index(kinds[i]) for i in data.y[rows]])
    right, sure = by_kind.argmax(1) == wanted, by_kind.max(1)
    label_right = np.mean(likely.argmax(1) == data.y[rows].numpy())
    print(f"of {len(rows)} unseen sentences label right {label_right:.1%}, kind {np.mean(right):.1%}")
    threshold = 0.99
    for at in np.arange(0.98, 0.3, -0.02):
        answered = sure >= at
        wrong = float(1 - np.mean(right[answered])) if answered.any() else 0.0
        if wrong <= _WRONG_MOST:
            threshold = float(at)
        print(f"  from {at:.2f}: answers {np.mean(answered):.1%}, of those wrong {wrong:.1%}")
    for i in np.flatnonzero(~right) if show else ():
        print(
            f"  {data.labels[data.y[rows[i]]]:24} → {names[by_kind[i].argmax()]:24} {sure[i]:.2f}  {data.said[rows[i]]}"
        )
    return threshold


def _write(out: Path, model: _Model, data: _Data, threshold: float) -> None:
    sentences = intents()
    about = {
        "labels": data.labels,
        "threshold": threshold,
        "fingerprint": fingerprint(),
        "examples": sentences,
        "own_words": own_words(sentences),
    }
    raw = json.dumps(about, ensure_ascii=False, sort_keys=True).encode()
    stored: dict[str, NDArray[np.generic]] = {
        "about": np.frombuffer(raw, np.uint8),
        "bias": model.head.bias.detach().numpy(),
    }
    matrices = {"head": model.head.weight}
    for number, layer in enumerate(model.layers, _FROZEN):
        for name, part in layer.parts.items():
            matrices |= {f"l{number}.{name}.a": part.a, f"l{number}.{name}.b": part.b}
    for name, matrix in matrices.items():
        stored[name], stored[f"{name}.scales"] = packed(matrix.detach().numpy())
    np.savez_compressed(out, **stored)  # type: ignore[arg-type]
    print(f"{out}: {out.stat().st_size / 1024:.0f} KiB")


def main(argv: Sequence[str] | None = None) -> int:
    """Train, print what unseen sentences say, write the head."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(str(source("head.npz"))))
    parser.add_argument("--cache", type=Path, help="where what the frozen layers make of sentences is kept")
    parser.add_argument("--epochs", type=int, default=_EPOCHS)
    parser.add_argument("--threshold", type=float, help="take this one, and leave the first training out")
    parser.add_argument("--only-check", action="store_true", help="leave the second training out and write nothing")
    parser.add_argument("--show", action="store_true", help="print the unseen sentences that are read wrong")
    args = parser.parse_args(argv)
    torch.set_num_threads(2)
    encoder = Encoder()
    data = _read(encoder, args.cache)
    every, threshold = np.arange(len(data.said)), args.threshold
    if threshold is None:
        seen = data.fold != 0
        threshold = _threshold(_trained(encoder, data, every[seen], args.epochs), data, every[~seen], args.show)
    if not args.only_check:
        _write(args.out, _trained(encoder, data, every, args.epochs), data, threshold)
    return 0


if __name__ == "__main__":
    sys.exit(main())
