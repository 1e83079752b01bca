"""trl's SFTTrainer with a loss that holds the model to its base, four savings, and checkpoints that survive a kill.

Rows of the behaviour are learned by cross-entropy. Rows of rehearsal are not learned at all: on them the loss is the
divergence KL(base ‖ model) over the whole vocabulary, token by token (Learning without Forgetting, Li & Hoiem 2016,
with the base itself as the teacher). It is zero as long as nothing was forgotten, where cross-entropy on the base's
own answers would sharpen what was right already. The loss of a step is mean(CE) + weight · mean(KL), each over its own
tokens. Both denominators are those of an average step of the data set, not of the batch at hand: every token of a kind
weighs the same, however a batch happens to mix the kinds, and the parts that a batch is computed in add up to the same
step.

The savings change no gradient:
1. A batch is computed in parts of a bounded number of tokens, chosen by best fit.
2. A part's rows stand behind each other without padding, each kept to itself, and what they have in common at their
   start is computed once (`packing`). Models that do not keep sequences apart get padded rows.
3. The output head and the loss are computed for labelled tokens alone, a few at a time (`head_loss`). Where the head is
   of an unknown kind, the model's own forward makes all their logits at once.
4. What the base says of held rows is asked once and kept, where that is little.

Several cards share a step, a process (rank) each: every rank is given the same batch and computes its own of the rows.
The loss is computed inside the forward of what accelerate wraps (DDP), and gradients are averaged over the ranks with
the last micro-batch alone; times the number of ranks they add up to those of one process, which the sums say as well.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from tunesmith.memory.json_values import as_int, as_list
from tunesmith.tools.training.batch_loss import (
    BatchLoss,
    LossSettings,
    Measured,
    batch_loss,
    micro_batches,
    rows_of,
    rows_of_rank,
    token_weights,
)
from tunesmith.tools.training.checkpoints import keep_checkpoint
from tunesmith.tools.training.finite import GRADIENT, LOSS, need_finite, need_finite_weights
from tunesmith.tools.training.lora_settings import LoraSettings
from tunesmith.tools.training.rows import TokenRow
from tunesmith.tools.training.selection import Validation, write_validations

if TYPE_CHECKING:
    from datasets import Dataset
    from torch import Tensor
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler
    from torch.utils.data import DataLoader, Sampler
    from transformers import TrainerCallback, TrainerState
    from trl import SFTConfig, SFTTrainer

    from tunesmith.tools.training.library import Inputs, Model, Trainer

    Logs: TypeAlias = dict[str, float] | None
    Collate: TypeAlias = Callable[[list[dict[str, object]]], dict[str, Tensor]]

_OWN_COLUMNS = ("rehearsal", "row", "values")
_FRAME_WEIGHT, _ALIKE_SHARE = 0.3, 0.2
"""Of a token of an answer's frame where values weigh more, and the share of the steps in which it weighs 1 yet: a model
has to know the form before it can fill it."""


@dataclass(frozen=True, slots=True)
class StepTokens:
    """Labelled tokens of an average optimiser step, by what is done with them; at least 1 each."""

    learned: float
    rehearsed: float

    @classmethod
    def of(cls, rows: Sequence[TokenRow], batch_size: int) -> StepTokens:
        """Of a data set of these rows."""
        share = batch_size / max(len(rows), 1)
        learned = sum(row.trainable for row in rows if not row.rehearsal) * share
        rehearsed = sum(row.trainable for row in rows if row.rehearsal) * share
        return cls(max(learned, 1.0), max(rehearsed, 1.0))


def rate_factor(step: int, *, steps: int, warmup: int) -> float:
    """Share of the learning rate at a step, counted from 0: up in equal steps, then down on half a cosine.

    It is above 0 at each; transformers' own begins at 0, so that a run's first batch is never learned from.
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(steps - warmup, 1)))


def step_weights(inputs: Inputs, settings: LoraSettings, state: TrainerState) -> Tensor | None:
    """Of the tokens of a batch, in the step that a trainer's state stands before; None where all count alike."""
    if settings.value_weight == 1 or not inputs["values"].any():
        return None
    frame = 1.0 if state.global_step < _ALIKE_SHARE * state.max_steps else _FRAME_WEIGHT
    return token_weights(inputs["values"], inputs["labels"], settings.value_weight, frame)


def make_trainer(
    *,
    loss: LossSettings,
    settings: LoraSettings,
    fingerprint: str,
    validate: Callable[[int], Validation],
    validations: list[Validation],
    on_step: Callable[[int, int], None],
    on_log: Callable[[dict[str, float], int], None],
    **options: object,
) -> Trainer:
    """An SFTTrainer over tokenized rows, which have the columns `rehearsal`, `row` and `values` beside the usual.

    What `base_states` made of those rows may be put into its `base_states`; else the base runs beside every step. Every
    checkpoint is validated before it is written, `validations` is added to and stands in it, and the settings'
    selection says when training ends. It raises StepFailed at the first loss, gradient or weight that is no finite
    number, before that is kept.
    """
    from transformers import PrinterCallback

    trainer_class = _trainer_class(loss, settings, fingerprint, validate)
    trainer = trainer_class(callbacks=[_reporter(on_step, on_log)], **options)
    trainer.validations = validations
    trainer.data_collator = _with_own_columns(trainer.data_collator)
    trainer.remove_callback(PrinterCallback)  # the curve goes to the store, not to the log
    # A function, not a method: accelerate binds a method that it wraps to the model.
    trainer.model.forward = lambda inputs, weights: trainer.own_loss(inputs, weights)
    ours: Trainer = trainer
    return ours


def sft_config(
    settings: LoraSettings, checkpoints_dir: Path, config: Mapping[str, object], *, joined_epochs: int, packed: bool
) -> SFTConfig:
    """The trainer's own settings; `joined_epochs`: epochs of different forms of the rows that it is given as one."""
    import torch
    from trl import SFTConfig

    on_gpu = torch.cuda.is_available()
    # The auxiliary loss trains routers, which stay as they are (`_need_routers_unchanged`).
    mixture = {"router_aux_loss_coef": 0.0} if config.get("router_aux_loss_coef") is not None else {}
    return SFTConfig(
        output_dir=str(checkpoints_dir),
        per_device_train_batch_size=settings.batch_size,  # the trainer computes it in parts
        per_device_eval_batch_size=4 * settings.batch_size,  # cut up the same way; fewer calls
        gradient_accumulation_steps=1,
        num_train_epochs=settings.epochs / joined_epochs,
        max_steps=settings.max_steps or -1,
        learning_rate=settings.learning_rate,
        warmup_steps=settings.warmup_ratio,  # the trainer's own schedule is made of it
        max_grad_norm=1.0,  # transformers' own default
        max_length=None,  # rows are cut to length already
        # Batches of rows alike in length are quicker where rows are padded, but each of them is a sample of one kind of
        # row. In random order a 135M model moved half as far from its base on the demo's rows, at the same loss, and
        # learned rows of very unequal length better; for two small sets of other behaviours order mattered no more than
        # a seed does.
        train_sampling_strategy="random" if packed else "group_by_length",
        gradient_checkpointing=settings.activation_checkpointing == "on",
        gradient_checkpointing_kwargs={"use_reentrant": False},
        # It wraps the outermost forward, where the loss switches it off again: there is no autocast on either device,
        # every product has its operands' own type, and adapters are cast to that (`fused_lora`).
        bf16=on_gpu and settings.precision == "bf16",
        use_cpu=not on_gpu,
        logging_steps=1,
        logging_nan_inf_filter=False,  # it leaves a loss that is no number out of the mean, which then looks healthy
        save_strategy="steps",
        save_steps=settings.save_steps,
        report_to="none",
        disable_tqdm=True,
        seed=settings.seed,
        data_seed=settings.seed,
        dataloader_pin_memory=on_gpu,
        prediction_loss_only=True,
        ddp_find_unused_parameters=False,
        ddp_broadcast_buffers=False,  # none of them changes
        **mixture,
    )


def dataset_of(rows: Sequence[TokenRow], places: Sequence[int]) -> Dataset:
    """As the trainer takes them; `places` are those of the rows among all whose base was asked."""
    from datasets import Dataset

    return Dataset.from_dict(
        {
            "input_ids": [row.input_ids for row in rows],
            "labels": [row.labels for row in rows],
            "length": [len(row.input_ids) for row in rows],
            "rehearsal": [row.rehearsal for row in rows],
            "row": list(places),
            "values": [[at for at, of_value in enumerate(row.values) if of_value] for row in rows],
        }
    )


def _trainer_class(
    loss: LossSettings, settings: LoraSettings, fingerprint: str, validate: Callable[[int], Validation]
) -> type[SFTTrainer]:
    """An SFTTrainer of this loss, a step at a time."""

    class Trainer(_sharing(_careful(settings, fingerprint, validate), loss)):  # type: ignore[misc]  # to mypy a call is no class
        def compute_loss(
            self,
            model: Callable[[Inputs, Tensor | None], BatchLoss],
            inputs: Inputs,
            return_outputs: bool = False,
            num_items_in_batch: object = None,
        ) -> Tensor:
            losses = model(inputs, step_weights(inputs, settings, self.state))
            counted = losses.counted()
            need_finite(LOSS, counted.weighted, self.state.global_step + 1, self.model, settings)
            if self._has_rows:
                self._step_losses.append(counted)
            ranks = self.accelerator.num_processes  # whose gradients DDP averages: they are to add up
            return losses.weighted * (ranks * self._has_rows) if ranks > 1 else losses.weighted

        def training_step(self, model: object, inputs: Inputs, num_items_in_batch: object = None) -> Tensor:
            """A whole optimiser step: the losses and gradients of its parts, on all cards, add up."""
            self._step_losses: list[BatchLoss] = []
            own = self._own_rows(inputs)
            self._has_rows = bool(own)
            # One without a row computes the first for nothing: all ranks exchange gradients in every step.
            *before, last = micro_batches({name: value[own or [0]] for name, value in inputs.items()}, loss)
            total = 0.0
            for part in before:  # gradients are exchanged once, with the last
                with self.accelerator.no_sync(model):
                    total += super().training_step(model, part, 1)
            total += super().training_step(model, last, 1)
            for name, value in self._together(self._step_losses).curves().items():
                self._metrics["train"][name].append(value)
            return total

        def _set_signature_columns_if_needed(self) -> None:
            # Columns that the model's forward does not name would be dropped from the rows.
            super()._set_signature_columns_if_needed()
            columns: list[str] = self.__dict__["_signature_columns"]
            self._signature_columns = list(dict.fromkeys([*columns, *_OWN_COLUMNS]))

    return Trainer


def _sharing(careful: type[SFTTrainer], loss: LossSettings) -> type[SFTTrainer]:
    """Such a trainer whose ranks share the rows of a batch, trained on or measured."""
    import torch
    from accelerate.utils import gather_object
    from transformers.trainer_pt_utils import LengthGroupedSampler

    class Sharing(careful):
        base_states: Mapping[int, Tensor] = {}

        def _own_rows(self, inputs: Inputs) -> list[int]:
            """Places of the rows of a batch that this rank computes."""
            lengths = inputs["attention_mask"].sum(1).tolist()
            return rows_of_rank(lengths, self.accelerator.process_index, self.accelerator.num_processes)

        def _together(self, losses: Sequence[BatchLoss]) -> BatchLoss:
            """The sums over all ranks, the same in each."""
            return BatchLoss.together(gather_object([BatchLoss.together(losses)]))

        def _get_train_sampler(self, *args: object) -> Sampler:
            """One that groups by length draws from what each process drew before: ranks would part company."""
            sampler = super()._get_train_sampler(*args)
            if self.accelerator.num_processes > 1 and isinstance(sampler, LengthGroupedSampler):
                sampler.generator = torch.Generator().manual_seed(self.args.data_seed)
            return sampler

        def get_train_dataloader(self) -> DataLoader:
            return _whole_batches(super().get_train_dataloader())

        def own_loss(self, inputs: Inputs, weights: Tensor | None = None) -> BatchLoss:
            bare = self.accelerator.unwrap_model(self.model)
            rehearsal = inputs["rehearsal"].tolist()
            known = None
            if self.base_states:
                rows = enumerate(inputs["row"].tolist())
                known = {place: self.base_states[row].to(bare.device) for place, row in rows if rehearsal[place]}
            # accelerate wraps a forward in autocast; here each product has the type that it is meant to have already.
            with torch.autocast(bare.device.type, enabled=False):
                return batch_loss(bare, rows_of(inputs), rehearsal, loss, known, weights)

        def measure(self, dataset: Dataset) -> Measured:
            """What a data set costs, each kind of row for itself, nothing trained."""
            was_training = self.model.training
            self.model.eval()
            with torch.no_grad():
                batches = [self._prepare_inputs(batch) for batch in _whole_batches(self.get_eval_dataloader(dataset))]
                own = ({name: value[self._own_rows(batch)] for name, value in batch.items()} for batch in batches)
                computed = [
                    self.own_loss(micro_batch).counted()
                    for rows in own
                    if len(rows["row"])
                    for micro_batch in micro_batches(rows, loss)
                ]
                losses = self._together(computed).means()
            self.model.train(was_training)
            return losses

    return Sharing


def _whole_batches(loader: DataLoader) -> DataLoader:
    """A loader that gives every rank the same batches, whose rows they share: the steps are those of one process."""
    shard = loader.batch_sampler
    if hasattr(shard, "process_index"):  # as transformers does it for its BatchRebalanceSampler
        shard.num_processes, shard.process_index, shard.even_batches = 1, 0, False
    return loader


def _careful(settings: LoraSettings, fingerprint: str, validate: Callable[[int], Validation]) -> type[SFTTrainer]:
    """An SFTTrainer whose checkpoints are validated, whole and of finite weights, or not there, that stops before it
    uses a gradient that is not, and whose warm-up begins above zero."""
    import torch
    from trl import SFTTrainer

    class Careful(SFTTrainer):
        validations: list[Validation]

        def _save_checkpoint(self, model: Model, trial: object) -> None:
            step, selection = self.state.global_step, settings.selection

            def write(aside: Path) -> Path:
                self._aside: str = str(aside)
                # Not SFTTrainer's own, which adds a model card to every checkpoint.
                super(SFTTrainer, self)._save_checkpoint(model, trial)
                write_validations(aside / f"checkpoint-{step}", self.validations)
                return aside / f"checkpoint-{step}"

            need_finite_weights(step, self.model, settings)
            self.validations.append(validate(step))
            best = selection.best(self.validations)
            if self.is_world_process_zero():
                keep_checkpoint(Path(self.args.output_dir), step, fingerprint, write, best=best.step if best else 0)
            self.accelerator.wait_for_everyone()
            self._aside = ""
            self.control.should_training_stop |= selection.ends(self.validations)

        def store_flos(self) -> None:
            """Nothing: all ranks would have to be asked, and rank 0 alone writes checkpoints."""

        def _get_output_dir(self, trial: object) -> str:
            # A checkpoint is written aside, and gets its name once it is whole.
            return getattr(self, "_aside", "") or str(super()._get_output_dir(trial))

        def _clip_grad_norm(self, model: Model) -> Tensor:
            # The gradient is whole here: all parts and cards are in it, and no step was taken yet.
            norm = super()._clip_grad_norm(model)
            need_finite(GRADIENT, float(norm), self.state.global_step + 1, model, settings)
            return norm

        def create_scheduler(self, num_training_steps: int, optimizer: Optimizer | None = None) -> LRScheduler:
            """A cosine whose warm-up begins above zero: every row is learned from, the first step's too. It slows down
            where a checkpoint strayed from the base."""
            schedule: LRScheduler | None = self.__dict__.get("lr_scheduler")
            if schedule is None:
                warmup = self.args.get_warmup_steps(num_training_steps)
                planned = partial(rate_factor, steps=num_training_steps, warmup=warmup)
                schedule = torch.optim.lr_scheduler.LambdaLR(
                    optimizer or self.optimizer,
                    lambda step: planned(step) * settings.selection.rate_share(self.validations),
                )
                self.lr_scheduler, self._created_lr_scheduler = schedule, True  # the flag: each `train` makes its own
            return schedule

    return Careful


def _reporter(on_step: Callable[[int, int], None], on_log: Callable[[dict[str, float], int], None]) -> TrainerCallback:
    from transformers import TrainerCallback

    class Report(TrainerCallback):
        def on_step_end(self, args: object, state: TrainerState, control: object, **kwargs: object) -> None:
            on_step(state.global_step, state.max_steps)

        def on_log(self, args: object, state: TrainerState, control: object, logs: Logs = None, **_: object) -> None:
            on_log(logs or {}, state.global_step)

    return Report()


def _with_own_columns(collate: Collate) -> Collate:
    """A collator that keeps, beside what `collate` makes, which rows these are, which of them are rehearsal, and which
    tokens are of values."""
    import torch

    def collated(features: list[dict[str, object]]) -> dict[str, Tensor]:
        batch = collate([{k: v for k, v in feature.items() if k not in _OWN_COLUMNS} for feature in features])
        batch["rehearsal"] = torch.tensor([bool(feature.get("rehearsal")) for feature in features])
        batch["row"] = torch.tensor([as_int(feature.get("row", -1)) for feature in features])
        batch["values"] = torch.zeros_like(batch["labels"], dtype=torch.bool)
        for row, feature in enumerate(features):
            batch["values"][row, as_list(feature.get("values") or [])] = True
        return batch

    return collated
