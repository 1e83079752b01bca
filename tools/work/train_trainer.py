"""trl's SFTTrainer with three savings that change no gradient, and checkpoints that survive a kill.

1. The attention mask of a right-padded batch is dropped: under causal attention no real token sees the padding.
2. What the batch's rows have in common at their start (system prompt, template, instruction) goes through the model
   once; its keys and values, gradients and all, are shared by the rows.
3. The vocabulary projection, a fifth of a small model, is computed for labelled tokens alone.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tunesmith.tools.work.train_checkpoints import keep_checkpoint
from tunesmith.tools.work.train_rows import IGNORED


def make_trainer(
    *,
    share_prefix: bool,
    plain_head: bool,
    fingerprint: str,
    on_step: Callable[[int, int], None],
    on_log: Callable[[dict[str, float], int], None],
    **options: Any,
) -> Any:
    """An SFTTrainer over tokenized rows; without `plain_head` trl's own loss is used as it is."""
    import torch
    from transformers import PrinterCallback, TrainerCallback
    from trl import SFTTrainer

    class Trainer(SFTTrainer):
        def compute_loss(
            self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Any:
            if not plain_head or return_outputs:
                return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
            hidden, labels = _hidden_states(_core(model), inputs, share_prefix)
            targets = labels[:, 1:]  # (batch, seq - 1)
            chosen = targets != IGNORED
            logits = _core(model).get_output_embeddings()(hidden[:, :-1][chosen]).float()  # (labelled, vocab)
            wanted = targets[chosen]
            total = torch.nn.functional.cross_entropy(logits, wanted, reduction="sum")
            count = num_items_in_batch if num_items_in_batch is not None else max(len(wanted), 1)
            right = (logits.detach().argmax(-1) == wanted).float().mean()
            self._metrics["train" if self.model.training else "eval"]["mean_token_accuracy"].append(right.item())
            return total / count

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
    trainer.remove_callback(PrinterCallback)  # the curve goes to the store, not to the log
    return trainer


def _core(model: Any) -> Any:
    """The causal language model inside peft's wrapper; its adapted layers stay in place."""
    model = getattr(model, "module", model)
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _hidden_states(core: Any, inputs: Any, share_prefix: bool) -> tuple[Any, Any]:
    """The backbone's last hidden states and the labels they belong to, without the prefix where that was shared."""
    ids, labels = inputs["input_ids"], inputs["labels"]  # (batch, seq)
    backbone = core.base_model
    length = shared_prefix_length(ids, labels) if share_prefix else 0
    if not length:
        return backbone(input_ids=ids, use_cache=False).last_hidden_state, labels
    past = backbone(input_ids=ids[:1, :length], use_cache=True).past_key_values
    past.batch_repeat_interleave(len(ids))
    rest = backbone(input_ids=ids[:, length:], past_key_values=past, use_cache=True)
    return rest.last_hidden_state, labels[:, length:]


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
