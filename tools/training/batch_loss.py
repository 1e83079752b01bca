"""What rows cost that are computed at once: cross-entropy where they are learned, KL to the base where held."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

from tunesmith.tools.training.head_loss import Head, HeadLoss, head_loss
from tunesmith.tools.training.packing import CPU_SIZES, best_fit, packed_sequences, shared_prefix_tokens
from tunesmith.tools.training.rows import IGNORED, TokenRow

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from tunesmith.tools.training.library import Inputs, Model

MOST_STATES_BYTES = 128 << 20
"""Room for the base's states of the held rows, in the CPU's memory: little enough to need no line in the price."""
MIN_SHARED_TOKENS = 64
"""What sharing a prefix has to save: its rows need a mask of their own in attention."""
_NO_LIMIT = 1 << 30
"""For chunks: all of a row is learned."""
Row = tuple[Sequence[int], Sequence[int]]
"""Ids and labels."""


@dataclass(frozen=True, slots=True)
class LossSettings:
    """How the loss of a batch is made."""

    learned_weight: float
    """Of the cross-entropy of each token that is learned."""
    divergence_weight: float
    """Of the divergence from the base, in nats, of each token that is held to it."""
    head: Head | None
    """None: the model's own forward makes the logits, all at once."""
    packed: bool
    """Whether rows stand behind each other in one sequence; else they are padded."""
    micro_batch_tokens: int = _NO_LIMIT
    """Tokens that are computed at once; a row that is longer is computed alone."""
    min_shared_tokens: int = MIN_SHARED_TOKENS
    """What has to be saved before a prefix that rows have in common is computed once."""


@dataclass(frozen=True, slots=True)
class Measured:
    """Means over labelled tokens; None where there is no token of that kind."""

    behaviour_loss: float | None
    """Cross-entropy on rows that are learned."""
    rehearsal_kl: float | None
    """KL(base ‖ model) on rows that are held: 0 is the base itself."""


@dataclass(frozen=True, slots=True)
class BatchLoss:
    """The loss, its sums over labelled tokens, and how many of these there are of each kind."""

    weighted: Tensor
    """Both kinds' sums, each with its weight: what has a gradient."""
    cross_entropy: Tensor
    """Of the rows that are learned."""
    divergence: Tensor
    """From the base, of the rows that are held to it."""
    learned: int
    rehearsed: int
    right: int
    """Tokens that the model would have chosen."""

    def counted(self) -> BatchLoss:
        """The same as plain numbers, which hold no graph."""
        return replace(
            self,
            weighted=self.weighted.item(),
            cross_entropy=float(self.cross_entropy),
            divergence=float(self.divergence),
        )

    @classmethod
    def together(cls, losses: Sequence[BatchLoss]) -> BatchLoss:
        """The sums of all losses."""
        return cls(*(sum(getattr(loss, field.name) for loss in losses) for field in fields(cls)))

    def means(self) -> Measured:
        """Means over tokens, each kind for itself."""
        return Measured(
            self.cross_entropy / self.learned if self.learned else None,
            self.divergence / self.rehearsed if self.rehearsed else None,
        )

    def curves(self) -> dict[str, float]:
        """What is worth a curve, as means over tokens; a kind without a token has none."""
        means = self.means()
        losses = {"behaviour_loss": means.behaviour_loss, "rehearsal_kl": means.rehearsal_kl}
        accuracy = {"mean_token_accuracy": self.right / max(self.learned + self.rehearsed, 1)}
        return accuracy | {name: value for name, value in losses.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows as a model takes them at once, and where their labels are."""

    forward: Mapping[str, object]
    """For the model: `input_ids` (sequences, tokens) and what belongs to them."""
    predicts: tuple[Tensor, Tensor]
    """Sequence and place of each token that predicts a label, (labelled,) each."""
    targets: Tensor
    """(labelled,): the labels."""
    row: Tensor
    """(labelled,): which of the rows each label belongs to."""
    place: Tensor
    """(labelled,): which token of its row each label is."""

    @classmethod
    def packed(cls, rows: Sequence[Row], device: torch.device, min_shared_tokens: int = MIN_SHARED_TOKENS) -> Batch:
        """One sequence, padded for a CPU's kernels alone; a prefix that all rows share stands in it once where that is
        worth it."""
        import torch

        prefix = shared_prefix_tokens(rows)
        if (len(rows) - 1) * prefix < min_shared_tokens:
            prefix = 0
        sizes = CPU_SIZES if torch.device(device).type == "cpu" else 1
        sequences = packed_sequences(rows, prefix=prefix, device=device, sizes=sizes)
        forward = {"input_ids": sequences.ids, "position_ids": sequences.positions, "sequences": sequences}
        return cls(
            forward,
            (torch.zeros_like(sequences.predicts), sequences.predicts),
            sequences.targets,
            sequences.row,
            sequences.place,
        )

    @classmethod
    def padded(cls, rows: Sequence[Row], device: torch.device) -> Batch:
        """A sequence for each row. No mask: attention is causal, so that nothing real sees the padding behind it."""
        import torch

        longest = max(len(ids) for ids, _ in rows)
        ids = torch.tensor([[*own, *[0] * (longest - len(own))] for own, _ in rows], device=device)
        labels = torch.tensor([[*own, *[IGNORED] * (longest - len(own))] for _, own in rows], device=device)[:, 1:]
        row, place = (labels != IGNORED).nonzero(as_tuple=True)
        return cls({"input_ids": ids}, (row, place), labels[row, place], row, place + 1)

    def hidden(self, core: Model) -> Tensor:
        """The backbone's last hidden states of the tokens that predict a label, (labelled, hidden)."""
        # No cache: with one, sdpa on a CPU lets packed rows see each other.
        return core.base_model(**self.forward, use_cache=False).last_hidden_state[self.predicts]

    def logits(self, core: Model) -> Tensor:
        """Their logits by the model's own forward in fp32, (labelled, vocab)."""
        sequence, place = self.predicts
        places, inverse = place.unique(return_inverse=True)
        logits = core(**self.forward, use_cache=False, logits_to_keep=places).logits
        return logits[sequence, inverse].float()


def core_of(model: Model) -> Model:
    """The causal language model inside peft's wrapper; its adapted layers stay in place."""
    model = getattr(model, "module", model)  # DistributedDataParallel's, where several cards train
    core: Model = model.get_base_model() if hasattr(model, "get_base_model") else model
    return core


def rows_of_rank(lengths: Sequence[int], rank: int, ranks: int) -> list[int]:
    """Places of the rows of a step that one of several ranks computes: the longest first, dealt out forth and back, so
    that all have about as many tokens. Of fewer rows than ranks the last ones get none."""
    if ranks == 1:
        return list(range(len(lengths)))
    # the longest are dealt first, so that the rest evens out
    longest_first = sorted(range(len(lengths)), key=lambda place: -lengths[place])
    turns = [*range(ranks), *reversed(range(ranks))]
    return [place for turn, place in enumerate(longest_first) if turns[turn % len(turns)] == rank]


def micro_batches(inputs: Inputs, loss: LossSettings) -> list[dict[str, Tensor]]:
    """A trainer's batch in the micro-batches that are computed one after the other."""
    batches = in_micro_batches(inputs["attention_mask"].sum(1).tolist(), loss)
    return [{name: value[places] for name, value in inputs.items()} for places in batches]


def in_micro_batches(lengths: Sequence[int], loss: LossSettings) -> list[list[int]]:
    """Places of rows of these lengths in batches of no more than `micro_batch_tokens`, padding included."""
    if loss.packed:
        return best_fit(lengths, loss.micro_batch_tokens)
    batches: list[list[int]] = []
    for place in sorted(range(len(lengths)), key=lambda place: lengths[place]):
        if batches and (len(batches[-1]) + 1) * lengths[place] <= loss.micro_batch_tokens:
            batches[-1].append(place)
        else:
            batches.append([place])
    return batches


def rows_of(inputs: Inputs) -> list[Row]:
    """Ids and labels of a trainer's batch without its padding."""
    lengths = inputs["attention_mask"].sum(1).tolist()
    ids, labels = inputs["input_ids"].tolist(), inputs["labels"].tolist()
    return [(own[:length], wanted[:length]) for own, wanted, length in zip(ids, labels, lengths, strict=True)]


def batch_loss(
    model: Model,
    rows: Sequence[Row],
    rehearsal: Sequence[bool],
    loss: LossSettings,
    base_states: Mapping[int, Tensor] | None = None,
    weights: Tensor | None = None,
) -> BatchLoss:
    """What rows cost; `rehearsal` says which of them are held to the base.

    `base_states` are, by the held rows' places in `rows`, the base's hidden states before their labels, (labelled,
    hidden) each; None: the base is asked now. `weights`, (rows, tokens), are those of the tokens that are learned, in
    `weighted` alone; None: all count alike.
    """
    import torch

    core = core_of(model)
    batch = _batch(core, rows, loss)
    values = _values(core, batch, loss)
    of_rehearsal = torch.tensor(rehearsal, device=values.device)[batch.row]  # (labelled,)
    each = None if weights is None else weights.to(values.device)[batch.row, batch.place][~of_rehearsal]
    learned = _summed(loss, loss.learned_weight, values[~of_rehearsal], batch.targets[~of_rehearsal], each=each)
    count = int(of_rehearsal.sum())
    if any(rehearsal):
        with torch.no_grad(), model.disable_adapter():
            if base_states is None:
                rehearsal_rows = [row for row, chosen in zip(rows, rehearsal, strict=True) if chosen]
                reference = _values(core, _batch(core, rehearsal_rows, loss), loss)  # held rows come in the same order
            else:
                reference = torch.cat([base_states[place] for place in dict.fromkeys(batch.row[of_rehearsal].tolist())])
        rehearsed = _summed(loss, loss.divergence_weight, values[of_rehearsal], batch.targets[of_rehearsal], reference)
        total, divergence, right = learned.weighted + rehearsed.weighted, rehearsed.sum, learned.right + rehearsed.right
    else:
        total, divergence, right = learned.weighted, 0.0, learned.right
    return BatchLoss(total, learned.sum, divergence, len(of_rehearsal) - count, count, int(right))


def _batch(core: Model, rows: Sequence[Row], loss: LossSettings) -> Batch:
    if loss.packed:
        return Batch.packed(rows, core.device, loss.min_shared_tokens)
    return Batch.padded(rows, core.device)


def _values(core: Model, batch: Batch, loss: LossSettings) -> Tensor:
    """What the loss is made of: hidden states before the head, or logits where its kind is unknown."""
    return batch.logits(core) if loss.head is None else batch.hidden(core)


def _summed(
    loss: LossSettings,
    weight: float,
    values: Tensor,
    targets: Tensor,
    reference: Tensor | None = None,
    each: Tensor | None = None,
) -> HeadLoss:
    """The loss of tokens, each with its weight; with a reference it is the divergence from that."""
    from torch.nn.functional import cross_entropy, kl_div

    if loss.head is not None:
        return head_loss(loss.head, values, targets, reference, weight=weight, each=each)
    right = (values.detach().argmax(-1) == targets).sum()
    if reference is None:
        costs = cross_entropy(values, targets, reduction="none")
    else:
        costs = kl_div(values.log_softmax(-1), reference.log_softmax(-1), reduction="none", log_target=True).sum(-1)
    weighted = (costs if each is None else costs * each).sum() * weight
    return HeadLoss(weighted, costs.detach().sum(), right)


def token_weights(values: Tensor, labels: Tensor, value_weight: float, frame_weight: float) -> Tensor:
    """(rows, tokens) of learned tokens: `value_weight` where `values` says that a token is of a value of its answer,
    else `frame_weight`, and all of a row times what makes their mean 1.

    So a row weighs what it does without, and one without a value, or of nothing else, is left as it is.
    """
    learned = labels != IGNORED
    raw = (values * value_weight + ~values * frame_weight) * learned
    # A row of which nothing is learned has the sum 0.
    return raw * (learned.sum(1, keepdim=True) / raw.sum(1, keepdim=True).clamp(min=1e-9))


def base_states(model: Model, rows: Sequence[TokenRow], loss: LossSettings) -> dict[int, Tensor]:
    """The base's last hidden states before each label of a held row, by the row's place in `rows`: (labelled, hidden).

    In the CPU's memory, computed with the adapter switched off. Empty where they would take more than
    MOST_STATES_BYTES, and where the model's own forward makes the logits.
    """
    import torch

    core, rehearsal = core_of(model), [place for place, row in enumerate(rows) if row.rehearsal]
    if loss.head is None:
        return {}
    width = loss.head.weight.shape[-1]
    if sum(rows[place].trainable for place in rehearsal) * width * core.dtype.itemsize > MOST_STATES_BYTES:
        return {}
    states: dict[int, Tensor] = {}
    was_training = model.training
    model.eval()
    with torch.no_grad(), model.disable_adapter():
        for batch_places in in_micro_batches([len(rows[place].input_ids) for place in rehearsal], loss):
            group = [rehearsal[at] for at in batch_places]
            pairs = [(rows[place].input_ids, rows[place].labels) for place in group]
            batch = _batch(core, pairs, loss)
            hidden, row = batch.hidden(core).cpu(), batch.row.cpu()
            states |= {place: hidden[row == number] for number, place in enumerate(group)}
    model.train(was_training)
    return states
