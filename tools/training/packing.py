"""Rows of unequal length as one sequence without padding, each kept to itself, what they begin with alike held once.

Everything but attention works on single tokens, so rows can stand behind each other: (1, tokens) instead of
(rows, longest). Position ids start anew with each row, there is no cache, and attention is computed row by row, rows of
similar length together. What all rows of a batch begin with (system prompt, template, instruction) stands once at the
front: every row's queries see its keys and values, and its gradients add up.

A model is tried before it is trusted (`keeps_sequences_apart`): two documents in one sequence must give the hidden
states of each alone, by the model's own attention. Not covered: attention that is more than softmax over scaled
products, causal or in a window (soft caps, sinks, chunks), and layers with a state that runs on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

from tunesmith.memory.json_values import as_int, as_list, as_object
from tunesmith.tools.training.attention import causal_attention, causal_mask
from tunesmith.tools.training.rows import IGNORED

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.autograd.function import Function, FunctionCtx
    from torch.nn import Module

    from tunesmith.tools.training.library import Model

ATTENTION = "tunesmith_documents"
"""Name of the attention below among those of transformers."""
_ROUNDING = 0.1
"""Relative distance of hidden states in bf16 that is rounding, and not another document."""
_SIMILAR = 0.75
"""Rows down to this share of the longest are computed with it, padded to it in attention alone."""
CPU_SIZES = 32
"""What numbers of tokens are best multiples of on a CPU: oneDNN compiles a kernel for every new size of a product, 5 ms
each and more than twenty in a step, and every step has another number of tokens."""


class Group(NamedTuple):
    """Rows of similar length that stand behind each other, padded to the longest in attention alone."""

    rows: int
    longest: int
    tokens: int
    places: Tensor
    """(rows · longest,): where each padded place is among the group's tokens; padding repeats a row's last token."""
    real: Tensor
    """(tokens,): the padded place of each of the group's tokens."""
    padding: Tensor
    """(rows · longest, 1) bool."""

    @classmethod
    def of(cls, lengths: Sequence[int], device: torch.device, sizes: int = 1) -> Group:
        """Of rows of these lengths, the longest first, padded to a multiple of `sizes`."""
        import torch

        longest, each = _multiple(lengths[0], sizes), torch.tensor(lengths)
        steps = torch.arange(longest)[None]  # (1, longest)
        starts = (each.cumsum(0) - each)[:, None]  # (rows, 1)
        places = starts + torch.minimum(steps, each[:, None] - 1)
        padding = steps >= each[:, None]
        real = (~padding).flatten().nonzero()[:, 0]
        return cls(
            len(lengths),
            longest,
            int(each.sum()),
            places.flatten().to(device),
            real.to(device),
            padding.flatten()[:, None].to(device),
        )

    @property
    def padded(self) -> bool:
        return self.rows * self.longest != self.tokens


@dataclass(frozen=True, slots=True)
class PackedSequences:
    """Rows in one sequence, as model and loss need them."""

    ids: Tensor
    """(1, tokens): the shared prefix, what each row has beyond it, longest first, and padding."""
    positions: Tensor
    """(1, tokens): of each token in its own row."""
    prefix: int
    """Tokens that are shared by all rows; 0: none."""
    groups: tuple[Group, ...]
    padding: int
    """Tokens at the end that belong to no row."""
    predicts: Tensor
    """(labelled,): places of the tokens that predict a label."""
    targets: Tensor
    """(labelled,): the labels."""
    row: Tensor
    """(labelled,): which of the rows each label belongs to."""
    place: Tensor
    """(labelled,): which token of its row each label is."""


def packed_sequences(
    rows: Sequence[tuple[Sequence[int], Sequence[int]]], *, prefix: int, device: torch.device, sizes: int = 1
) -> PackedSequences:
    """`rows` are pairs of ids and labels; the first `prefix` tokens are the same in all and predict no label.

    All tokens together, and those of a group's rows in attention, become a multiple of `sizes`.
    """
    import torch

    # the longest first: shorter ones beside are padded to it
    order = sorted(range(len(rows)), key=lambda place: -len(rows[place][0]))
    ids, positions = list(rows[0][0][:prefix]), list(range(prefix))
    predicts: list[int] = []
    targets: list[int] = []
    owner: list[int] = []
    at_row: list[int] = []
    for place in order:
        own, labels = rows[place]
        for at in range(prefix + 1, len(own)):
            if labels[at] != IGNORED:
                predicts.append(len(ids) + at - 1 - prefix)
                targets.append(labels[at])
                owner.append(place)
                at_row.append(at)
        ids.extend(own[prefix:])
        positions.extend(range(prefix, len(own)))
    padding = _multiple(len(ids), sizes) - len(ids)
    ids.extend([0] * padding)
    positions.extend([0] * padding)
    lengths = [len(rows[place][0]) - prefix for place in order]
    groups = tuple(Group.of(group, device, sizes) for group in _similar(lengths))
    predicts_, targets_, owner_, at_ = (torch.tensor(one, device=device) for one in (predicts, targets, owner, at_row))
    ids_, positions_ = (torch.tensor(one, device=device)[None] for one in (ids, positions))
    return PackedSequences(ids_, positions_, prefix, groups, padding, predicts_, targets_, owner_, at_)


def _multiple(number: int, of: int) -> int:
    return -(-number // of) * of


def _similar(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Lengths, the longest first, in runs whose shortest is not much shorter than its longest."""
    run: list[int] = []
    for length in lengths:
        if run and length < run[0] * _SIMILAR:
            yield run
            run = []
        run.append(length)
    yield run


def best_fit(lengths: Sequence[int], most_tokens: int) -> list[list[int]]:
    """Places of rows in as few bins of at most `most_tokens` as best fit, the longest first, finds.

    A row that is longer than that has a bin of its own.
    """
    bins: list[list[int]] = []
    room: list[int] = []
    # the longest first: short ones fill what they leave
    for place in sorted(range(len(lengths)), key=lambda place: -lengths[place]):
        fitting = [number for number, left in enumerate(room) if left >= lengths[place]]
        if fitting:
            best = min(fitting, key=lambda number: room[number])
        else:
            best = len(bins)
            bins.append([])
            room.append(most_tokens)
        bins[best].append(place)
        room[best] -= lengths[place]
    return [sorted(places) for places in bins]


def shared_prefix_tokens(rows: Sequence[tuple[Sequence[int], Sequence[int]]]) -> int:
    """How many tokens at the start are the same in every row and predict no labelled token; 0 for a single row."""
    if len(rows) < 2:
        return 0
    same = sum(1 for _ in _while_alike([ids for ids, _ in rows]))
    # The token before the first label predicts it, so it must stay with its row.
    first = min(next((at for at, label in enumerate(labels) if label != IGNORED), len(labels)) for _, labels in rows)
    return max(0, min(same, first - 1))


def _while_alike(rows: Sequence[Sequence[int]]) -> Iterator[int]:
    for tokens in zip(*rows, strict=False):  # until the shortest ends
        if len(list(groupby(tokens))) > 1:
            return
        yield tokens[0]


def hidden_states(core: Model, batch: PackedSequences) -> Tensor:
    """The backbone's last hidden states, (tokens, hidden)."""
    # No cache: with one, sdpa on a CPU lets rows see each other (a logit's difference of 22 for 3e-5).
    return core.base_model(
        input_ids=batch.ids, position_ids=batch.positions, use_cache=False, sequences=batch
    ).last_hidden_state[0]


def use_document_attention(model: Model) -> None:
    """Have a model's attention keep packed sequences apart; without `sequences=` it is the usual causal one."""
    from transformers import AttentionInterface

    AttentionInterface.register(ATTENTION, _attention)
    model.set_attn_implementation(ATTENTION)


def keeps_sequences_apart(model: Model, config: Mapping[str, object]) -> bool:
    """Whether a model took the attention above and computes two documents in one sequence as it did each alone.

    If not, it has its own attention back.
    """
    # Private: transformers has a call to set it and none to ask.
    own = model.config._attn_implementation
    distance = sequence_distance(model, config)
    if distance is not None and distance <= most_rounding(model):
        return True
    if model.config._attn_implementation != own:  # as above: no call asks
        model.set_attn_implementation(own)
    return False


def most_rounding(model: Model) -> float:
    """The distance of hidden states up to which it is rounding, and not another document."""
    import torch

    # fp32 rounds to next to nothing, and a tenth of it still is no document
    return _ROUNDING if model.dtype != torch.float32 else _ROUNDING / 10


# Of two lengths, neither a multiple of a block: a mask that is off by one shows.
def sequence_distance(model: Model, config: Mapping[str, object], lengths: tuple[int, int] = (24, 17)) -> float | None:
    """How far the second of two documents in one sequence is from itself alone; the model has the attention then.

    Relative, the median of its tokens: on a model of 30 layers in bf16 rounding makes 1.6 %, in fp32 none, and seeing
    the first document 48 %. None where the model does not take the attention.
    """
    import torch

    text = {**config, **as_object(config.get("text_config", {}))}
    if not {*as_list(text.get("layer_types") or [])} <= {"full_attention", "sliding_attention"}:
        return None
    size = min(as_int(text["vocab_size"]), 4096)  # rows of one step each never come round to an id again
    # Low ids, which every vocabulary has and a base was trained on; two steps, so that no stretch is alike in both.
    rows = [
        [(at * step) % size for at in range(3, 3 + length)] for length, step in zip(lengths, (37, 101), strict=True)
    ]
    training = model.training
    try:
        with torch.no_grad():
            model.eval()
            ids = [torch.tensor([row], device=model.device) for row in rows]
            # no cache: nothing goes on from it
            alone = [model.base_model(input_ids=one, use_cache=False).last_hidden_state[0] for one in ids]
            use_document_attention(model)
            batch = packed_sequences([(row, [IGNORED] * len(row)) for row in rows], prefix=0, device=model.device)
            together = hidden_states(model, batch).float()
    except (NotImplementedError, TypeError, ValueError):  # an attention of its own kind, which takes other arguments
        return None
    finally:
        model.train(training)
    second, expected = together[len(rows[0]) : len(rows[0]) + len(rows[1])], alone[1].float()
    distance = (second - expected).norm(dim=-1) / expected.norm(dim=-1)
    return float(distance.median())


def _attention(
    module: Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None = None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sequences: PackedSequences | None = None,
    sliding_window: int | None = None,
    **more: object,
) -> tuple[Tensor, None]:
    """(1, heads, tokens, width) → (1, tokens, heads, width). Raises NotImplementedError for what it does not cover."""
    import torch
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if odd := [name for name in ("softcap", "s_aux", "position_bias") if more.get(name) is not None]:
        raise NotImplementedError(f"attention with {', '.join(odd)}")
    if sequences is None:
        if sliding_window is not None and key.shape[-2] > sliding_window:
            attention_mask = causal_mask(query.shape[-2], key.shape[-2] - query.shape[-2], sliding_window, query.device)
        out: Tensor = sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, **more)[0]
        return out, None
    # As attention is defined; a model may say another one (Gemma's).
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    sizes = [sequences.prefix, *(group.tokens for group in sequences.groups), sequences.padding]
    queries, keys, values = (states[0].split(sizes, dim=1) for states in (query, key, value))  # (heads, tokens, width)
    outs = []
    first_key, first_value = keys[0], values[0]
    if sequences.prefix:
        q, k, v = (one[None] for one in (queries[0], first_key, first_value))
        outs.append(causal_attention(q, k, v, scale, dropout, sliding_window)[0])
    for group, *states in zip(sequences.groups, queries[1:-1], keys[1:-1], values[1:-1], strict=True):
        q, k, v = (_padded(one, group) for one in states)  # (rows, heads, longest, width)
        if sequences.prefix:
            k, v = (
                torch.cat([first[None].expand(group.rows, -1, -1, -1), one], dim=2)
                for first, one in ((first_key, k), (first_value, v))
            )
        outs.append(_unpadded(causal_attention(q, k, v, scale, dropout, sliding_window), group))
    outs.append(torch.zeros_like(queries[-1]))  # nothing sees these tokens, and nothing is asked of them
    return torch.cat(outs, dim=1).transpose(0, 1)[None], None


def _padded(states: Tensor, group: Group) -> Tensor:
    """(heads, tokens, width) → (rows, heads, longest, width)."""
    heads, _, width = states.shape
    if group.padded:
        states = _moved().apply(states, group.places, group.real, None)
    return states.reshape(heads, group.rows, group.longest, width).transpose(0, 1)


def _unpadded(states: Tensor, group: Group) -> Tensor:
    """(rows, heads, longest, width) → (heads, tokens, width)."""
    heads, width = states.shape[1], states.shape[3]
    states = states.transpose(0, 1).reshape(heads, -1, width)
    return _moved().apply(states, group.real, group.places, group.padding) if group.padded else states


@cache
def _moved() -> type[Function]:
    """Padding and its inverse: a gather whose gradient is a gather too, which a general one's is not."""
    import torch

    class Moved(torch.autograd.Function):
        @staticmethod
        def forward(ctx: FunctionCtx, states: Tensor, places: Tensor, back: Tensor, padding: Tensor | None) -> Tensor:
            ctx.save_for_backward(back, padding)
            return states.index_select(1, places)

        @staticmethod
        def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
            back, padding = ctx.saved_tensors
            grad = grad.index_select(1, back)
            return grad if padding is None else grad.masked_fill(padding, 0), None, None, None

    return Moved
