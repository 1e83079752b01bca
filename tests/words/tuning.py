"""Fine-tune the encoder on the sentences in intents/: LoRA on every matrix, a softmax layer over what comes out of it.

The encoder's own weights stay as the package holds them; the low-rank matrices lie in head.npz and are added to them as
they are loaded (Hu et al. 2021, arXiv:2106.09685). It needs torch, and only `make words` needs it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tunesmith.agent.words.encoder import MATRICES, WIDTH, Encoder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor
    from torch.nn import Linear

    Floats = NDArray[np.float32]

RANK, EPOCHS, MORE_EPOCHS, LAYER_EPOCHS = 8, 5, 2, 3
"""Few numbers on few sentences: more of either learns them by heart. The layer alone learns sooner: of 659 strangers'
sentences it reads 82.4, 82.7 and 82.2 % rightly after two, three and five epochs. What goes on from matrices that were
learned takes fewer, and half the rate."""
_TOGETHER, _SCORED = 32, 64
"""Steps of few sentences learn more from each; what is only scored needs no gradients' memory."""
_RATE, _HEAD_RATE, _HEAD_DECAY, _WARM_UP = 7e-4, 3e-3, 0.05, 100
"""Of the low-rank matrices and of the softmax layer, by AdamW; the decay holds the layer only, and the rate rises over
so many steps and then falls to nothing."""
_SMOOTHED, _DROPPED = 0.05, 0.1
"""Share of a label's weight that all labels get, and of the embedding's numbers left out of a step: a sentence's label
is seldom the only right one."""
_MOST_GRADIENT = 1.0
_LENGTH_APART = 2.0
"""Tokens by which sentences of one batch may differ in length: padding is computed too."""


@dataclass(frozen=True, slots=True)
class Sentences:
    """What is learned from: token ids, flags of the slots, and the number of each one's label."""

    ids: Sequence[Sequence[int]]
    flags: Floats
    labels: NDArray[np.int64]
    classes: int

    def some(self, places: NDArray[np.int64]) -> Sentences:
        """Those at these places."""
        return Sentences([self.ids[i] for i in places], self.flags[places], self.labels[places], self.classes)


@dataclass(frozen=True, slots=True)
class Tuned:
    """What was learned, rounded as it is stored."""

    added: dict[str, NDArray[np.float16]]
    """`l0.q.in` (rank × inputs) and `l0.q.out` (outputs × rank) of every matrix."""
    weights: Floats
    """Classes × (embedding, flags)."""
    bias: Floats


class Tuning:
    """Trainings on some of the sentences, whose token vectors are computed once."""

    def __init__(self, encoder: Encoder, sentences: Sentences) -> None:
        import numpy as np
        import torch

        self._encoder, self._all = encoder, sentences
        self._vectors: dict[int, NDArray[np.float16]] = {}
        for places, ids in encoder.of_one_length(sentences.ids):
            self._vectors |= zip(places, encoder.token_vectors(ids).astype(np.float16), strict=True)
        self._names = [f"l{i}.{part}" for i in range(encoder.layers) for part in MATRICES]
        frozen = {name: encoder.matrix(name) for name in self._names}
        norms = [f"l{i}.{norm}.{end}" for i in range(encoder.layers) for norm in ("aln", "oln") for end in ("w", "b")]
        frozen |= {name: encoder.floats(name) for name in (*(f"{name}.b" for name in self._names), *norms)}
        self._frozen = {name: torch.from_numpy(np.array(array)) for name, array in frozen.items()}

    def learned(
        self, places: NDArray[np.int64], seed: int = 0, before: Mapping[str, NDArray[np.float16]] | None = None
    ) -> Tuned:
        """What the sentences at these places teach; with `before`, from matrices on that were learned already."""
        import numpy as np
        import torch

        torch.manual_seed(seed)
        begun = {name: torch.from_numpy(one).float() for name, one in before.items()} if before else self._begun()
        added = {name: array.requires_grad_() for name, array in begun.items()}
        centre = self._centre(added, places)
        random = np.random.default_rng(seed)
        epochs = [self._batches(places, random) for _ in range(MORE_EPOCHS if before else EPOCHS)]
        layer = _fitted(self._all, centre, lambda batch: self._embedded(added, batch), [*added.values()], epochs,
                        _RATE / 2 if before else _RATE)  # fmt: skip
        return _stored(added, layer.weight, layer.bias, centre)

    def _begun(self) -> dict[str, Tensor]:
        """The low-rank matrices before anything is learned: what they add is nothing."""
        import torch

        begun = {}
        for name in self._names:
            outputs, inputs = self._frozen[name].shape
            begun[f"{name}.in"] = torch.randn(RANK, inputs) / math.sqrt(inputs)
            begun[f"{name}.out"] = torch.zeros(outputs, RANK)
        return begun

    def _centre(self, added: Mapping[str, Tensor], places: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Mean and spread of the embeddings; those of about one length together, since padding is computed too."""
        import numpy as np
        import torch

        ordered = places[np.argsort([len(self._all.ids[i]) for i in places], kind="stable")]
        with torch.no_grad():
            parts = [ordered[start : start + _SCORED] for start in range(0, len(ordered), _SCORED)]
            embedded = torch.cat([self._embedded(added, part) for part in parts])
        return embedded.mean(dim=0), embedded.std(dim=0)

    def _batches(self, places: NDArray[np.int64], random: np.random.Generator) -> Iterator[NDArray[np.int64]]:
        """Sentences of about one length together, in an order of chance."""
        import numpy as np

        lengths = np.array([len(self._all.ids[i]) for i in places])
        order = np.argsort(lengths + random.uniform(-_LENGTH_APART, _LENGTH_APART, len(places)), kind="stable")
        batches = [places[order[start : start + _TOGETHER]] for start in range(0, len(places), _TOGETHER)]
        for i in random.permutation(len(batches)):
            yield batches[i]

    def _embedded(self, added: Mapping[str, Tensor], batch: NDArray[np.int64]) -> Tensor:
        """What the encoder with the low-rank matrices makes of some sentences: as `Encoder.embed_ids` does."""
        import torch
        from torch.nn import functional, utils

        vectors = [torch.from_numpy(self._vectors[int(i)]).float() for i in batch]
        lengths = torch.tensor([len(one) for one in vectors])
        x = utils.rnn.pad_sequence(vectors, batch_first=True)
        is_token = torch.arange(x.shape[1])[None, :] < lengths[:, None]
        frozen = self._frozen

        def through(name: str, x: Tensor) -> Tensor:
            low = functional.linear(functional.linear(x, added[f"{name}.in"]), added[f"{name}.out"])
            return functional.linear(x, frozen[name], frozen[f"{name}.b"]) + low

        def normed(name: str, x: Tensor) -> Tensor:
            return functional.layer_norm(x, (WIDTH,), frozen[f"{name}.w"], frozen[f"{name}.b"], self._encoder.eps)

        for layer in (f"l{i}" for i in range(self._encoder.layers)):
            heads = (*x.shape[:2], self._encoder.heads, -1)
            q, k, v = (through(f"{layer}.{part}", x).view(heads).transpose(1, 2) for part in ("q", "k", "v"))
            attended = functional.scaled_dot_product_attention(q, k, v, attn_mask=is_token[:, None, None, :])
            x = normed(f"{layer}.aln", x + through(f"{layer}.ao", attended.transpose(1, 2).reshape(x.shape)))
            inner = functional.gelu(through(f"{layer}.fi", x))
            x = normed(f"{layer}.oln", x + through(f"{layer}.fo", inner))
        counted = is_token[..., None].to(x.dtype)
        return (x * counted).sum(dim=1) / lengths[:, None]


def layer_alone(
    added: Mapping[str, NDArray[np.float16]], embedded: Floats, sentences: Sentences, seed: int = 0
) -> Tuned:
    """What sentences teach the layer alone. `embedded`: what the encoder makes of them with `added`, which it learned
    before and keeps."""
    import numpy as np
    import torch

    torch.manual_seed(seed)
    whole, random = torch.from_numpy(embedded), np.random.default_rng(seed)
    centre, many = (whole.mean(dim=0), whole.std(dim=0)), math.ceil(len(embedded) / _TOGETHER)
    # Sentences of any length in a batch, for nothing is padded: of one length they read a percent fewer rightly.
    epochs = [iter(np.array_split(random.permutation(len(embedded)), many)) for _ in range(LAYER_EPOCHS)]
    layer = _fitted(sentences, centre, lambda batch: whole[torch.from_numpy(batch)], [], epochs)
    return _stored({name: torch.from_numpy(one) for name, one in added.items()}, layer.weight, layer.bias, centre)


def _fitted(
    sentences: Sentences,
    centre: tuple[Tensor, Tensor],
    embedded: Callable[[NDArray[np.int64]], Tensor],
    matrices: Sequence[Tensor],
    epochs: Sequence[Iterator[NDArray[np.int64]]],
    rate: float = _RATE,
) -> Linear:
    """The softmax layer on what `embedded` makes of the sentences at some places, and the matrices of low rank with it,
    where there are any, after these epochs of batches."""
    import torch
    from torch.nn import functional, utils

    layer = torch.nn.Linear(WIDTH + sentences.flags.shape[1], sentences.classes)
    torch.nn.init.zeros_(layer.weight)
    groups = [{"params": [*layer.parameters()], "lr": _HEAD_RATE, "weight_decay": _HEAD_DECAY}]
    groups += [{"params": [*matrices], "lr": rate, "weight_decay": 0.0}] if matrices else []
    optimizer = torch.optim.AdamW(groups)
    batches = [[*epoch] for epoch in epochs]
    steps = sum(map(len, batches))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / _WARM_UP) * max(0.0, 1 - step / steps)
    )
    for number, epoch in enumerate(batches, 1):
        total = 0.0
        for batch in epoch:
            plain = functional.dropout((embedded(batch) - centre[0]) / centre[1], _DROPPED)
            scores = layer(torch.cat([plain, torch.from_numpy(sentences.flags[batch])], dim=1))
            labels = torch.from_numpy(sentences.labels[batch])
            loss = functional.cross_entropy(scores, labels, label_smoothing=_SMOOTHED)
            optimizer.zero_grad()
            loss.backward()
            utils.clip_grad_norm_([*matrices, *layer.parameters()], _MOST_GRADIENT)
            optimizer.step()
            schedule.step()
            total += loss.item() * len(batch)
        print(f"  epoch {number} of {len(batches)}: loss {total / sum(map(len, epoch)):.3f}", flush=True)
    return layer


def _stored(added: Mapping[str, Tensor], weights: Tensor, bias: Tensor, centre: tuple[Tensor, Tensor]) -> Tuned:
    """As it is stored: the mean and the spread of the embeddings go into the weights and the bias."""
    import numpy as np

    mean, spread = (one.numpy() for one in centre)
    plain = weights.detach().numpy()
    own = plain[:, :WIDTH] / spread
    return Tuned(
        {name: array.detach().numpy().astype(np.float16) for name, array in added.items()},
        np.hstack([own, plain[:, WIDTH:]]),
        bias.detach().numpy() - own @ mean,
    )
