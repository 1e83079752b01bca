"""trl's SFTTrainer with a loss that holds the model to its base, three savings, and checkpoints that survive a kill.

Rows of the behaviour are learned by cross-entropy. Rows of rehearsal are not learned at all: on them the loss is the
divergence KL(base ‖ model) over the whole vocabulary, token by token (Learning without Forgetting, Li & Hoiem 2016,
with the base itself as the teacher). It is zero as long as nothing was forgotten, where cross-entropy on the base's
own answers would sharpen what was right already.

The savings change no gradient:
1. The attention mask of a right-padded batch is dropped: under causal attention no real token sees the padding.
2. What the batch's rows have in common at their start (system prompt, template, instruction) goes through the model
   once; its keys and values, gradients and all, are shared by the rows.
3. The vocabulary projection, a fifth of a small model, is computed for labelled tokens alone. Where the model does more
   to its logits than that (soft caps, scales: Gemma, Granite, Cohere), its own forward computes them, for every place
   that is labelled in any row of the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.tools.training.checkpoints import keep_checkpoint
from tunesmith.tools.training.rows import IGNORED


@dataclass(frozen=True, slots=True)
class LossSettings:
    """How the loss of a batch is made."""

    rehearsal_weight: float
    """Of the divergence from the base, in nats a token, beside the cross-entropy of the rows that are learned."""
    share_prefix: bool
    """Whether keys and values of what the rows have in common may be computed once."""
    plain_head: bool
    """Whether logits are the output matrix times the last hidden state; else the model's own forward makes them."""


def make_trainer(
    *,
    loss: LossSettings,
    fingerprint: str,
    on_step: Callable[[int, int], None],
    on_log: Callable[[dict[str, float], int], None],
    **options: Any,
) -> Any:
    """An SFTTrainer over tokenized rows."""
    from transformers import PrinterCallback, TrainerCallback
    from trl import SFTTrainer

    class Trainer(SFTTrainer):
        def compute_loss(
            self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Any:
            rehearsal = inputs.pop("rehearsal")  # (batch,)
            if return_outputs:
                return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
            bare = self.accelerator.unwrap_model(model)
            total, labelled, right = batch_loss(bare, inputs["input_ids"], inputs["labels"], rehearsal, loss)
            count = num_items_in_batch if num_items_in_batch is not None else max(labelled, 1)
            self._metrics["train" if self.model.training else "eval"]["mean_token_accuracy"].append(right)
            return total / count

        def _set_signature_columns_if_needed(self) -> None:
            super()._set_signature_columns_if_needed()
            kept: list[str] = self.__dict__["_signature_columns"]
            self._signature_columns = list(dict.fromkeys([*kept, "rehearsal"]))

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

    class Report(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            on_step(state.global_step, state.max_steps)

        def on_log(
            self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any
        ) -> None:
            on_log(logs or {}, state.global_step)

    trainer = Trainer(callbacks=[Report()], **options)
    trainer.data_collator = _with_rehearsal(trainer.data_collator)
    trainer.remove_callback(PrinterCallback)  # the curve goes to the store, not to the log
    return trainer


def _core(model: Any) -> Any:
    """The causal language model inside peft's wrapper; its adapted layers stay in place."""
    model = getattr(model, "module", model)
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _with_rehearsal(collate: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A collator that keeps, beside what `collate` makes, which rows of the batch are rehearsal."""
    import torch

    def collated(features: Any) -> Any:
        batch = collate([{k: v for k, v in feature.items() if k != "rehearsal"} for feature in features])
        batch["rehearsal"] = torch.tensor([bool(feature.get("rehearsal")) for feature in features])
        return batch

    return collated


def batch_loss(model: Any, ids: Any, labels: Any, rehearsal: Any, loss: LossSettings) -> tuple[Any, int, float]:
    """The summed loss of a batch, its labelled tokens, and the share of them that the model would have chosen.

    `ids` and `labels` are of shape (batch, seq), `rehearsal` (batch,) says which rows are held to the base.
    """
    import torch

    core = _core(model)
    reference = None
    if rehearsal.any():
        with torch.no_grad(), model.disable_adapter():
            reference, *_ = labelled_logits(core, ids[rehearsal], labels[rehearsal], loss)
    logits, wanted, row = labelled_logits(core, ids, labels, loss)
    learned = ~rehearsal[row]  # (labelled,)
    total = torch.nn.functional.cross_entropy(logits[learned], wanted[learned], reduction="sum")
    if reference is not None:
        total = total + loss.rehearsal_weight * divergence(reference, logits[~learned])
    return total, len(wanted), (logits.detach().argmax(-1) == wanted).float().mean().item()


def divergence(reference: Any, logits: Any) -> Any:
    """KL(reference ‖ model) in nats, summed over tokens; both are logits of shape (tokens, vocab)."""
    from torch.nn.functional import kl_div

    return kl_div(logits.log_softmax(-1), reference.log_softmax(-1), reduction="sum", log_target=True)


def labelled_logits(core: Any, ids: Any, labels: Any, loss: LossSettings) -> tuple[Any, Any, Any]:
    """Logits of the labelled tokens in fp32 (labelled, vocab), their labels, and the row that each stands in."""
    length = shared_prefix_length(ids, labels) if loss.share_prefix else 0
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

    0 for a single row, and for less than 4 tokens, which would not pay.
    """
    if len(ids) < 2:
        return 0
    same = (ids == ids[0]).all(0).long().cumprod(0).sum()
    # The token before the first label predicts it, so it must stay with its row.
    first_label = (labels != IGNORED).long().argmax(1).min()
    length = int(min(same, first_label - 1))
    return length if length >= 4 else 0
