"""trl's SFTTrainer with a loss that holds the model to its base, four savings, and checkpoints that survive a kill.

Rows of the behaviour are learned by cross-entropy. Rows of rehearsal are not learned at all: on them the loss is the
divergence KL(base ‖ model) over the whole vocabulary, token by token (Learning without Forgetting, Li & Hoiem 2016,
with the base itself as the teacher). It is zero as long as nothing was forgotten, where cross-entropy on the base's
own answers would sharpen what was right already. The loss of a step is mean(CE) + weight · mean(KL), each over its own
tokens. Both denominators are those of an average step of the data set, not of the batch at hand: every token of a kind
weighs the same, however length grouping mixes the kinds, and accumulated micro-batches add up to the same step.

The savings change no gradient:
1. The attention mask of a right-padded batch is dropped: under causal attention no real token sees the padding.
2. What the batch's rows have in common at their start (system prompt, template, instruction) goes through the model
   once, where it is long enough to pay for the pass; its keys and values, gradients and all, are shared by the rows.
3. The vocabulary projection, a fifth of a small model, is computed for labelled tokens alone. Where the model does more
   to its logits than that (soft caps, scales: Gemma, Granite, Cohere), its own forward computes them, for every place
   that is labelled in any row of the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.memory.errors import StepFailed
from tunesmith.tools.training.checkpoints import keep_checkpoint
from tunesmith.tools.training.rows import IGNORED, TokenRow

MOST_STATES_BYTES = 128 << 20
"""Room for the base's states of the held rows, in the CPU's memory: little enough to need no line in the price."""
WORTH_SHARING_TOKENS = 256
"""What sharing has to save: on the bundled model and two cores, its pass of its own costs as much as 200 tokens."""
_OWN_COLUMNS = ("rehearsal", "row")


@dataclass(frozen=True, slots=True)
class StepTokens:
    """Labelled tokens of an average optimiser step, by what is done with them; at least 1 each."""

    learned: float
    held: float

    @classmethod
    def of(cls, rows: Sequence[TokenRow], batch_size: int) -> StepTokens:
        """Of a data set of these rows."""
        share = batch_size / max(len(rows), 1)
        learned = sum(row.trainable for row in rows if not row.rehearsal) * share
        rehearsed = sum(row.trainable for row in rows if row.rehearsal) * share
        return cls(max(learned, 1.0), max(rehearsed, 1.0))


@dataclass(frozen=True, slots=True)
class Measured:
    """Means over labelled tokens; None where there is no token of that kind."""

    behaviour_loss: float | None
    """Cross-entropy on rows that are learned."""
    rehearsal_kl: float | None
    """KL(base ‖ model) on rows that are held: 0 is the base itself."""


@dataclass(frozen=True, slots=True)
class LossSettings:
    """How the loss of a batch is made."""

    rehearsal_weight: float
    """Of the mean divergence from the base, in nats a token, beside the mean cross-entropy of what is learned."""
    share_prefix: int
    """Tokens that have to be saved before keys and values of what the rows have in common are computed once; 0: they
    may not be."""
    plain_head: bool
    """Whether logits are the output matrix times the last hidden state; else the model's own forward makes them."""


def make_trainer(
    *,
    loss: LossSettings,
    step_tokens: StepTokens,
    fingerprint: str,
    on_step: Callable[[int, int], None],
    on_log: Callable[[dict[str, float], int], None],
    **options: Any,
) -> Any:
    """An SFTTrainer over tokenized rows, which have the columns `rehearsal` (bool) and `row` (int) beside the usual.

    What `base_states` made of those rows may be put into its `base_states`; else the base runs beside every step.
    """
    import torch
    from transformers import PrinterCallback

    class Trainer(_checkpointing(fingerprint)):  # type: ignore[misc]
        base_states: Mapping[int, Any] = {}

        def compute_loss(
            self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Any:
            if self.accelerator.num_processes > 1:  # the unwrapped model would never synchronise its gradients
                raise StepFailed("training runs on one device; start it with one process")
            losses = self._batch_loss(inputs)
            for name, value in losses.curves().items():
                self._metrics["train"][name].append(value)
            total = (
                losses.cross_entropy / step_tokens.learned
                + loss.rehearsal_weight * losses.divergence / step_tokens.held
            )
            # Without a count of items transformers takes the loss for a mean over its micro-batch, and divides.
            return total if num_items_in_batch is not None else total * self.args.gradient_accumulation_steps

        def _batch_loss(self, inputs: Any) -> BatchLoss:
            bare = self.accelerator.unwrap_model(self.model)
            ids, rehearsal, held = inputs["input_ids"], inputs["rehearsal"], inputs["row"][inputs["rehearsal"]].tolist()
            states = torch.cat([self.base_states[row] for row in held]) if self.base_states and held else None
            return batch_loss(bare, ids, inputs["labels"], rehearsal, loss, states)

        def measure(self, dataset: Any) -> Measured:
            """What a data set costs, each kind of row for itself, nothing trained."""
            was_training = self.model.training
            self.model.eval()
            with torch.no_grad():
                batches = (self._prepare_inputs(batch) for batch in self.get_eval_dataloader(dataset))
                losses = _mean_losses(self._batch_loss(batch) for batch in batches)
            self.model.train(was_training)
            return losses

        def _set_signature_columns_if_needed(self) -> None:
            super()._set_signature_columns_if_needed()
            columns: list[str] = self.__dict__["_signature_columns"]
            self._signature_columns = list(dict.fromkeys([*columns, *_OWN_COLUMNS]))

    trainer = Trainer(callbacks=[_reporter(on_step, on_log)], **options)
    trainer.data_collator = _with_own_columns(trainer.data_collator)
    trainer.remove_callback(PrinterCallback)  # the curve goes to the store, not to the log
    return trainer


def _checkpointing(fingerprint: str) -> Any:
    """An SFTTrainer whose checkpoints are whole or not there."""
    from trl import SFTTrainer

    class Checkpointing(SFTTrainer):
        def _save_checkpoint(self, model: Any, trial: Any) -> None:
            def write(aside: Path) -> Path:
                self._aside: str = str(aside)
                # Not SFTTrainer's own, which adds a model card to every checkpoint.
                super(SFTTrainer, self)._save_checkpoint(model, trial)
                return aside / f"checkpoint-{self.state.global_step}"

            root = Path(self.args.output_dir)
            keep_checkpoint(root, self.state.global_step, fingerprint, write)
            self._aside = ""

        def _get_output_dir(self, trial: Any) -> str:
            return getattr(self, "_aside", "") or str(super()._get_output_dir(trial))

    return Checkpointing


def _reporter(on_step: Callable[[int, int], None], on_log: Callable[[dict[str, float], int], None]) -> Any:
    from transformers import TrainerCallback

    class Report(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            on_step(state.global_step, state.max_steps)

        def on_log(
            self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any
        ) -> None:
            on_log(logs or {}, state.global_step)

    return Report()


def _core(model: Any) -> Any:
    """The causal language model inside peft's wrapper; its adapted layers stay in place."""
    model = getattr(model, "module", model)
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _with_own_columns(collate: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A collator that keeps, beside what `collate` makes, which rows these are and which of them are rehearsal."""
    import torch

    def collated(features: Any) -> Any:
        batch = collate([{k: v for k, v in feature.items() if k not in _OWN_COLUMNS} for feature in features])
        batch["rehearsal"] = torch.tensor([bool(feature.get("rehearsal")) for feature in features])
        batch["row"] = torch.tensor([int(feature.get("row", -1)) for feature in features])
        return batch

    return collated


@dataclass(frozen=True, slots=True)
class BatchLoss:
    """Sums over a batch's labelled tokens, and how many there are of each kind."""

    cross_entropy: Any
    """Of the rows that are learned."""
    divergence: Any
    """From the base, of the rows that are held to it."""
    learned: int
    held: int
    right: int
    """Tokens that the model would have chosen."""

    def curves(self) -> dict[str, float]:
        """What is worth a curve, as means over tokens; a kind without a token has none."""
        curves = {"mean_token_accuracy": self.right / max(self.learned + self.held, 1)}
        curves |= {"behaviour_loss": self.cross_entropy.item() / self.learned} if self.learned else {}
        return curves | ({"rehearsal_kl": self.divergence.item() / self.held} if self.held else {})


def _mean_losses(batches: Iterable[BatchLoss]) -> Measured:
    cross_entropy, kl, learned, rehearsed = 0.0, 0.0, 0, 0
    for losses in batches:
        cross_entropy, kl = cross_entropy + losses.cross_entropy.item(), kl + losses.divergence.item()
        learned, rehearsed = learned + losses.learned, rehearsed + losses.held
    return Measured(cross_entropy / learned if learned else None, kl / rehearsed if rehearsed else None)


def batch_loss(
    model: Any, ids: Any, labels: Any, rehearsal: Any, loss: LossSettings, base_states: Any = None
) -> BatchLoss:
    """What a batch costs. `ids` and `labels` are (batch, seq); `rehearsal` (batch,) says which rows are held.

    `base_states` (labelled, hidden) are the base's last hidden states before the labels of the held rows, in order;
    None: the base is asked now.
    """
    import torch

    core = _core(model)
    logits, wanted, row = labelled_logits(core, ids, labels, loss)
    learned = ~rehearsal[row]  # (labelled,)
    kl = logits.new_zeros(())
    if rehearsal.any():
        with torch.no_grad(), model.disable_adapter():
            if base_states is None:
                reference, *_ = labelled_logits(core, ids[rehearsal], labels[rehearsal], loss)
            else:
                reference = core.get_output_embeddings()(base_states.to(logits.device)).float()
        kl = divergence(reference, logits[~learned])
    count = int(learned.sum())
    return BatchLoss(
        cross_entropy=torch.nn.functional.cross_entropy(logits[learned], wanted[learned], reduction="sum"),
        divergence=kl,
        learned=count,
        held=len(wanted) - count,
        right=int((logits.detach().argmax(-1) == wanted).sum()),
    )


def base_states(model: Any, rows: Sequence[TokenRow], at_once: int) -> dict[int, Any]:
    """The base's last hidden states before each label of a held row, by the row's place in `rows`: (labelled, hidden).

    In the CPU's memory, computed `at_once` rows at a time with the adapter switched off. Empty where they would take
    more than MOST_STATES_BYTES. Only of use where the logits are the output matrix times these states (`plain_head`).
    """
    import torch

    core, held = _core(model), [place for place, row in enumerate(rows) if row.rehearsal]
    width = core.get_output_embeddings().weight.shape[-1]
    if sum(rows[place].trainable for place in held) * width * core.dtype.itemsize > MOST_STATES_BYTES:
        return {}
    held.sort(key=lambda place: len(rows[place].input_ids))
    states: dict[int, Any] = {}
    was_training = model.training
    model.eval()
    with torch.no_grad(), model.disable_adapter():
        for start in range(0, len(held), at_once):
            group = held[start : start + at_once]
            longest = max(len(rows[place].input_ids) for place in group)
            padded = [rows[place].input_ids + [0] * (longest - len(rows[place].input_ids)) for place in group]
            ids = torch.tensor(padded, device=core.device)
            hidden = core.base_model(input_ids=ids, use_cache=False).last_hidden_state
            for place, row in zip(group, hidden, strict=True):
                chosen = torch.tensor(rows[place].labels[1:]) != IGNORED
                states[place] = row[: len(chosen)][chosen.to(row.device)].cpu()
    model.train(was_training)
    return states


def divergence(reference: Any, logits: Any) -> Any:
    """KL(reference ‖ model) in nats, summed over tokens; both are logits of shape (tokens, vocab)."""
    from torch.nn.functional import kl_div

    return kl_div(logits.log_softmax(-1), reference.log_softmax(-1), reduction="sum", log_target=True)


def labelled_logits(core: Any, ids: Any, labels: Any, loss: LossSettings) -> tuple[Any, Any, Any]:
    """Logits of the labelled tokens in fp32 (labelled, vocab), their labels, and the row that each stands in."""
    length = shared_prefix_length(ids, labels) if loss.share_prefix else 0
    if (len(ids) - 1) * length < loss.share_prefix:
        length = 0
    forward: dict[str, Any] = {"input_ids": ids, "use_cache": False}
    if length:
        past = core.base_model(input_ids=ids[:1, :length], use_cache=True).past_key_values
        past.batch_repeat_interleave(len(ids))
        forward = {"input_ids": ids[:, length:], "past_key_values": past, "use_cache": True}
    targets = labels[:, length + 1 :]  # (batch, seq - length - 1)
    chosen = targets != IGNORED
    if loss.plain_head:
        hidden = core.base_model(**forward).last_hidden_state
        logits = core.get_output_embeddings()(hidden[:, :-1][chosen])
    else:
        places = chosen.any(0).nonzero()[:, 0]
        logits = core(**forward, logits_to_keep=places).logits[chosen[:, places]]
    return logits.float(), targets[chosen], chosen.nonzero()[:, 0]


def shared_prefix_length(ids: Any, labels: Any) -> int:
    """How many tokens at the start of a batch are the same in every row and predict no labelled token.

    0 for a single row, and for less than 4 tokens.
    """
    if len(ids) < 2:
        return 0
    same = (ids == ids[0]).all(0).long().cumprod(0).sum()
    # The token before the first label predicts it, so it must stay with its row.
    first_label = (labels != IGNORED).long().argmax(1).min()
    length = int(min(same, first_label - 1))
    return length if length >= 4 else 0
