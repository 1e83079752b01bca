"""train at work: a low-rank adapter on the frozen base, checkpointed, resumable, loadable by vLLM."""

from __future__ import annotations

import gc
import json
import math
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith.memory.errors import StepFailed
from tunesmith.memory.files import atomic_write
from tunesmith.tools.core.job import Job
from tunesmith.tools.core.settled import settled_objects
from tunesmith.tools.data.rows import read_rows
from tunesmith.tools.machine.device import computes_on_cpu, need_priced_device, this_rank
from tunesmith.tools.models.memory_math import CUDA_BYTES
from tunesmith.tools.serving.context_settings import context_settings_at_work
from tunesmith.tools.training.apart_job import train_apart
from tunesmith.tools.training.batch_loss import LossSettings, Measured, base_states
from tunesmith.tools.training.checkpoints import newest_checkpoint, step_of, whole_checkpoints
from tunesmith.tools.training.choices import VALIDATION_ROWS, largest_part, tokens_at_once
from tunesmith.tools.training.finite import need_finite, need_result, saved_is_finite
from tunesmith.tools.training.four_bit import need_four_bits, router_bytes, weights_by_kind
from tunesmith.tools.training.fused_lora import use_fused_lora
from tunesmith.tools.training.head_loss import find_head
from tunesmith.tools.training.lora_settings import LoraSettings, settings_of
from tunesmith.tools.training.lora_settings import fingerprint as fingerprint_of
from tunesmith.tools.training.model import load_base, lora_config
from tunesmith.tools.training.packing import keeps_sequences_apart
from tunesmith.tools.training.rows import TokenRow, read_variants, tokenize_rows, with_variants
from tunesmith.tools.training.selection import Validation, read_validations
from tunesmith.tools.training.train import TrainRequest, TrainResult, training_bytes
from tunesmith.tools.training.trained import OutOfMemory, ToTrain, Trained
from tunesmith.tools.training.trainer import StepTokens, dataset_of, make_trainer, sft_config

if TYPE_CHECKING:
    from transformers import TrainerState

    from tunesmith.tools.training.library import Tokenizer, Trainer

_CURVES = ("loss", "behaviour_loss", "rehearsal_kl", "learning_rate", "grad_norm", "mean_token_accuracy")


def run(job: Job[TrainRequest]) -> TrainResult:
    """Train on the dataset's rows and publish the adapter; run again, it goes on from the last whole checkpoint."""
    need_priced_device(job)
    base, dataset = job.verified("base"), job.verified("dataset")
    at_once = context_settings_at_work(job, thoughts_only=True).thinking == "off"
    settings = settings_of(job.request, cards=job.plan.estimate.cards, at_once=at_once)
    out_dir, measured = job.dir / "adapter", job.dir / "trained.json"
    if job.sealed(out_dir) is None or not measured.exists():
        asked = ToTrain(
            base.path,
            dataset.path / "train.jsonl",
            out_dir,
            settings,
            checkpoints_dir=job.dir / "checkpoints",
            valid_path=dataset.path / "valid.jsonl",
            progress=job.progress,
            metric=job.metric,
            log=job.log,
        )
        # On several cards in processes of its own; on one too, as memory that ran out there is given back by its end.
        apart = settings.cards > 1 or not computes_on_cpu()
        trained = in_smaller_parts(asked, partial(train_apart, watch=job.watched.append) if apart else train_lora)
        job.write_json("trained.json", asdict(trained))
    figures = json.loads(measured.read_text())
    need_result(out_dir, measured, figures)
    artifact = job.publish("adapter", out_dir, meta={"lora_rank": settings.lora_rank, "bytes": _bytes(out_dir)})
    shutil.rmtree(job.dir / "checkpoints", ignore_errors=True)  # many times the adapter; nothing goes on from them
    seconds, peak = figures.pop("seconds"), figures["peak_vram_bytes"] if not figures["fallback"] else 0
    return TrainResult(
        artifact=artifact.id,
        path=str(out_dir),
        expected_vram_bytes=training_bytes(job.request, base, dataset, on_cpu=False) if peak else 0,
        tokens_per_second=round(figures["trained_tokens"] / max(seconds, 1e-9), 1),  # a coarse clock may say 0
        **figures,
    )


def in_smaller_parts(asked: ToTrain, train: Callable[[ToTrain], Trained]) -> Trained:
    """Train; where memory runs out, go on from the newest checkpoint with fewer rows at once, down to one.

    Parts add up to the same step. Raises OutOfMemory where one row at once is too much.
    """
    fallback, settings = "", asked.settings
    while True:
        try:
            return replace(train(replace(asked, settings=settings)), fallback=fallback)
        except OutOfMemory as error:
            if settings.rows_at_once == 1:
                raise
            fewer = largest_part(settings.rows_at_once)
            ran_out = f"memory ran out at {settings.rows_at_once} rows at once"
            fallback = f"{ran_out}, it went on with {fewer}"
            asked.log(f"{error}; going on from the newest checkpoint with {fewer}")
            asked.progress(0, 1, fallback)
        settings = replace(settings, micro_batch=fewer)
        gc.collect()  # of the attempt, in this process


def train_lora(asked: ToTrain) -> Trained:
    """Train an adapter and save it in its `out_dir` as vLLM and peft load it.

    Checkpoints go below its `checkpoints_dir`; one that is whole and of the same settings, rows and base is gone on
    from. Raises StepFailed naming the setting to change when memory runs out.
    """
    asked.progress(0, 1, "reading the rows")
    with out_of_memory_named(asked.settings):
        session = _Session(asked)
        trained = session.train()
        session.save(asked.out_dir)
    return trained


class _Session:
    """One training run: the tokenized rows, the trainer, and what was measured on the way."""

    def __init__(self, asked: ToTrain) -> None:
        from transformers import AutoTokenizer
        from transformers.utils import logging

        logging.disable_progress_bar()
        base_dir, rows_path, settings = asked.base_dir, asked.rows_path, asked.settings
        self.base_dir, self.settings, self.checkpoints_dir = base_dir, settings, asked.checkpoints_dir
        self.writes: bool = this_rank().is_main_process
        """Whether this process writes what all ranks came to."""
        self.progress, self.metric, self.log = asked.progress, asked.metric, asked.log
        self.config: dict[str, object] = json.loads((base_dir / "config.json").read_text())
        tokenizer: Tokenizer = AutoTokenizer.from_pretrained(base_dir)
        longest, at_once = settings.max_seq_len_tokens, settings.at_once
        self.rows = tokenize_rows(tokenizer, read_rows(rows_path), longest, at_once=at_once)
        self.valid: list[TokenRow] = []
        if (valid := asked.valid_path) is not None and valid.exists() and valid.stat().st_size:
            self.valid = _of_each_kind(tokenize_rows(tokenizer, read_rows(valid), longest, at_once=at_once))
        several = settings.epochs > 1
        self.variants = read_variants(tokenizer, rows_path, longest, at_once=at_once) if several else {}
        self.joined_epochs = math.ceil(settings.epochs) if self.variants else 1
        """Epochs of different forms of the rows that the trainer is given as one."""
        self.seen, self.places = with_variants(self.rows, self.variants, self.joined_epochs, max(settings.forms, 1))
        self.fingerprint = fingerprint_of(base_dir, rows_path, settings)
        self.checkpoint = newest_checkpoint(self.checkpoints_dir, self.fingerprint, self._usable)
        self.first = step_of(self.checkpoint) if self.checkpoint else 0
        """The step that an earlier attempt came to."""
        self.validations = read_validations(self.checkpoint)
        self.validation_s = 0.0
        self.before_path = self.checkpoints_dir / f"before-{self.fingerprint[:16]}.json"
        self.trainer = self._trainer(tokenizer)

    def _usable(self, checkpoint: Path) -> bool:
        finite = saved_is_finite(checkpoint)
        if not finite:
            self.log(f"{checkpoint.name} is left out: its weights are no finite numbers")
        return finite

    def _trainer(self, tokenizer: Tokenizer) -> Trainer:
        settings = self.settings
        self.progress(0, 1, "loading the base")
        model = load_base(self.base_dir, precision=settings.precision, load_in_4bit=settings.load_in_4bit)
        kinds = weights_by_kind(model)
        # for a line of the report
        self.bytes_per_parameter = {kind: round(of.bytes_per_parameter, 3) for kind, of in kinds.items()}
        self.log("bytes a parameter: " + ", ".join(f"{kind} {n:.2f}" for kind, n in self.bytes_per_parameter.items()))
        if settings.load_in_4bit:
            need_four_bits(kinds)
        self.routers = router_bytes(model)
        step = StepTokens.of(self.seen, settings.batch_size)
        loss = LossSettings(
            learned_weight=1 / step.learned,
            divergence_weight=settings.rehearsal_weight / step.rehearsed,
            head=find_head(model, self.config),
            packed=keeps_sequences_apart(model, self.config),
            micro_batch_tokens=self._micro_batch_tokens(),
        )
        trainer = make_trainer(
            loss=loss,
            settings=settings,
            fingerprint=self.fingerprint,
            validate=self._validation,
            validations=self.validations,
            on_step=self._on_step,
            on_log=self._on_log,
            model=model,
            args=sft_config(
                settings, self.checkpoints_dir, self.config, joined_epochs=self.joined_epochs, packed=loss.packed
            ),
            train_dataset=dataset_of(self.seen, self.places),
            processing_class=tokenizer,
            peft_config=lora_config(model, self.config, settings),
        )
        for parameter in trainer.model.parameters():
            if parameter.requires_grad:  # trl makes them bf16 on a 4-bit base, where small Adam steps vanish
                parameter.data = parameter.data.float()
        fused = 0 if settings.lora_dropout else use_fused_lora(trainer.model)
        trainable = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
        self.log(
            f"{len(self.rows)} rows, {trainable:,} trainable parameters, {fused} fused layers, up to "
            f"{loss.micro_batch_tokens} tokens at once {'without' if loss.packed else 'with'} padding"
        )
        self.progress(0, 1, "asking the base about the rows that are held to it")
        trainer.base_states = base_states(trainer.model, [*self.rows, *self.valid], loss)
        return trainer

    def _micro_batch_tokens(self) -> int:
        """What the plan's price counts on; no row may be longer."""
        longest = max(len(row.input_ids) for row in (*self.rows, *chain(*self.variants.values())))
        settings, usual = self.settings, self.settings.usual_row_tokens or self._tokens_per_row()
        allowed = settings.max_seq_len_tokens
        return max(longest, tokens_at_once(settings.rows_at_once, usual, allowed, on_cpu=computes_on_cpu()))

    def _tokens_per_row(self) -> float:
        return sum(len(row.input_ids) for row in self.seen) / len(self.seen)

    def train(self) -> Trained:
        """Train to the end, from the checkpoint where there is one, and go back to the best one of all."""
        before = self._validation_before()
        if before is not None and not any(one.step == 0 for one in self.validations):
            self.validations.insert(0, Validation(0, before, 0.0))
        self.started = time.monotonic()
        state = self._state_of_the_end()
        over = state is not None
        if state is None:
            if self.checkpoint is not None:
                self.log(f"going on from {self.checkpoint.name}")
            with settled_objects():
                self.trainer.train(resume_from_checkpoint=str(self.checkpoint) if self.checkpoint else None)
            state = self.trainer.state
        seconds, new_steps = time.monotonic() - self.started - self.validation_s, state.global_step - self.first
        best = self._load_best(state.global_step, loaded=not over)
        self._need_routers_unchanged()
        losses = [entry["loss"] for entry in state.log_history if "loss" in entry]
        choice = self.settings.selection.sentence(best, ended=state.global_step, planned=state.max_steps)
        self.log(choice)
        return Trained(
            steps=state.global_step,
            epochs=round(float(state.epoch or 0) * self.joined_epochs, 3),
            # The last five steps' mean: a single step's loss depends on which few rows it drew.
            train_loss=sum(losses[-5:]) / max(len(losses[-5:]), 1),
            validation_loss_before=before,
            validation_loss=best.loss,
            validation_kl=best.kl,
            best_step=best.step,
            choice=choice if best.loss is not None else "",
            trainable_parameters=sum(p.numel() for p in self.trainer.model.parameters() if p.requires_grad),
            trained_tokens=round(new_steps * self.settings.batch_size * self._tokens_per_row()),
            seconds=seconds,
            peak_vram_bytes=_peak_vram_bytes(),
            bytes_per_parameter=self.bytes_per_parameter,
        )

    def _state_of_the_end(self) -> TrainerState | None:
        """The trainer's state where an earlier attempt came to the end of training; else None."""
        from transformers import TrainerState

        if self.checkpoint is None:
            return None
        state = TrainerState.load_from_json(str(self.checkpoint / "trainer_state.json"))
        over = state.global_step >= state.max_steps or self.settings.selection.ends(self.validations)
        return state if over else None

    def _load_best(self, ended: int, *, loaded: bool) -> Validation:
        """Give the model the weights of the best checkpoint that is whole; `loaded`: it has those of step `ended`."""
        whole = {step_of(one): one for one in whole_checkpoints(self.checkpoints_dir, self.fingerprint, self._usable)}
        best = self.settings.selection.best(self.validations, whole) or Validation(ended, None, None)
        if best.step != ended or not loaded:
            model = self.trainer.model
            model.load_adapter(str(whole[best.step]), model.active_adapter, is_trainable=True)
        return best

    def save(self, out_dir: Path) -> None:
        """Write the adapter alone: safetensors and its config with the base it belongs to."""
        if not self.writes:
            return
        self.progress(1, 1, "saving the adapter")
        shutil.rmtree(out_dir, ignore_errors=True)  # of a save that was cut off: a whole one is not made again
        # `False`: peft would otherwise look for the base's config on the hub.
        self.trainer.model.save_pretrained(out_dir, save_embedding_layers=False)
        (out_dir / "README.md").unlink(missing_ok=True)  # peft's card, a form that nobody filled in
        path = out_dir / "adapter_config.json"
        config = json.loads(path.read_text()) | {"base_model_name_or_path": str(self.base_dir)}
        atomic_write(path, json.dumps(config, indent=2, sort_keys=True))

    def _need_routers_unchanged(self) -> None:
        """What chooses a mixture's experts is frozen at the base's own precision: the same bytes as were loaded."""
        after = router_bytes(self.trainer.model)
        base = self.routers.values()
        if changed := sum(one != other for one, other in zip(after.values(), base, strict=True)):
            raise StepFailed(f"training changed {changed} of {len(after)} routers, which are frozen; report this fault")

    def _validation_before(self) -> float | None:
        if not self.valid:
            return None
        if self.before_path.exists():
            known: float | None = json.loads(self.before_path.read_text())
            if known is None or math.isfinite(known):
                return known
        # Untrained, the model is its base: what it diverges from that is nothing, and costs half of the time to find.
        loss = self._validate(0, [row for row in self.valid if not row.rehearsal]).behaviour_loss
        if self.writes:
            atomic_write(self.before_path, json.dumps(loss))
        return loss

    def _validation(self, step: int) -> Validation:
        """Of the model after `step`, on the rows that are not trained on."""
        started = time.monotonic()
        measured = self._validate(step, self.valid)
        self.validation_s += time.monotonic() - started
        return Validation(step, measured.behaviour_loss, measured.rehearsal_kl)

    def _validate(self, step: int, rows: Sequence[TokenRow]) -> Measured:
        """What the behaviour and what staying as the base is cost on the first of the rows that are not trained on."""
        if not rows:
            return Measured(None, None)
        steps = self.trainer.state.max_steps
        self.progress(step, max(steps, 1), f"validation at step {step}")
        places = range(len(self.rows), len(self.rows) + len(rows))
        measured: Measured = self.trainer.measure(dataset_of(rows, places))
        for name, value in (("validation_loss", measured.behaviour_loss), ("validation_kl", measured.rehearsal_kl)):
            if value is not None:
                need_finite(name.replace("_", " "), value, step, self.trainer.model, self.settings)
                self.metric(name, value, step)
                self.log(f"{name.replace('_', ' ')} at step {step}: {value:.4f}")
        return measured

    def _on_step(self, step: int, steps: int) -> None:
        pace = (time.monotonic() - self.started - self.validation_s) / max(step - self.first, 1)
        self.progress(step, steps, f"step {step} of {steps}, {steps - step} to go, {pace:.2f} s each")

    def _on_log(self, logs: dict[str, float], step: int) -> None:
        for name in _CURVES:
            if name in logs:
                self.metric(name, float(logs[name]), step)


def _of_each_kind(rows: list[TokenRow]) -> list[TokenRow]:
    """The first rows of either kind, those that are learned before those that are held: neither hides the other."""
    kinds = ([row for row in rows if row.rehearsal is rehearsal] for rehearsal in (False, True))
    return [row for kind in kinds for row in kind[:VALIDATION_ROWS]]


def _peak_vram_bytes() -> int:
    """What this process held of its card at most; 0 where it has none."""
    import torch

    return int(torch.cuda.max_memory_reserved()) + CUDA_BYTES if torch.cuda.is_available() else 0


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())


@contextmanager
def out_of_memory_named(settings: LoraSettings) -> Iterator[None]:
    """Turn running out of memory into an OutOfMemory that names the setting to change; other errors pass."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:  # torch's are RuntimeErrors, Python's own is not
        text = str(error)
        if not isinstance(error, MemoryError) and "out of memory" not in text and "can't allocate memory" not in text:
            raise
        at_once = settings.rows_at_once
        smaller = f"micro_batch={largest_part(at_once)}" if at_once > 1 else "load_in_4bit=true"
        raise OutOfMemory(
            f"out of memory at {at_once} rows at once, max_seq_len_tokens={settings.max_seq_len_tokens} "
            f"({text.splitlines()[0][:120] if text else 'no size given'}); "
            f"try {smaller}, or a smaller max_seq_len_tokens"
        ) from error
