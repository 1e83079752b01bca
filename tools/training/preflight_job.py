"""preflight at work: the dataset, two optimiser steps, and an adapter in vLLM, each with its evidence."""

from __future__ import annotations

import itertools
import shutil
import sys
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith.memory.errors import StepFailed
from tunesmith.memory.records import Artifact, TrainingRow
from tunesmith.tools.core.job import Job
from tunesmith.tools.core.rates import START
from tunesmith.tools.data.rows import read_rows, write_rows
from tunesmith.tools.machine.device import need_priced_device
from tunesmith.tools.machine.gpus import measure_gpus, trains_on_cpu
from tunesmith.tools.models.chat_template import answering_at_once, template_messages
from tunesmith.tools.models.measuring import QUANTIZED_BASE, answering_base
from tunesmith.tools.models.probe_adapters import write_probe
from tunesmith.tools.models.tensor_file import ADAPTER_NAME
from tunesmith.tools.models.turn_end import turn_end
from tunesmith.tools.serving import servers
from tunesmith.tools.serving.budget import rank_served
from tunesmith.tools.serving.client import ChatRequest, ChatResponse
from tunesmith.tools.serving.context_settings import context_settings_at_work
from tunesmith.tools.serving.eviction import make_room
from tunesmith.tools.serving.model_server import measuring_server
from tunesmith.tools.serving.requests import chat_client
from tunesmith.tools.training.apart_job import train_apart
from tunesmith.tools.training.lora_settings import LoraSettings, settings_of
from tunesmith.tools.training.preflight import (
    ANSWER_TOKENS,
    STAGE,
    Check,
    PreflightRequest,
    PreflightResult,
    made_up_rows,
)
from tunesmith.tools.training.rows import REHEARSAL_ORIGINS, tokenize_row, tokenize_rows
from tunesmith.tools.training.train import training_bytes
from tunesmith.tools.training.trained import ToTrain

if TYPE_CHECKING:
    from tunesmith.tools.training.library import Tokenizer

_ZERO = "preflight-zero"


def run(job: Job[PreflightRequest]) -> PreflightResult:
    """Try every link; all of them are tried, then the first broken one fails the step."""
    base = job.verified("base")
    dataset = made_up_rows(job.request) if job.request.made_up else job.verified("dataset")
    if QUANTIZED_BASE in job.inputs:
        job.verified(QUANTIZED_BASE)
    links = _Links(job, base.path, dataset.path)
    checks: list[Check] = []
    for name, link in links.all().items():
        job.progress(0, 1, name, kind=START)
        try:
            checks.append(Check(name=name, passed=True, evidence=link()))
        except Exception as error:  # whatever breaks a link, the links after it are tried too
            job.log(f"{name}: {type(error).__name__}: {error}")
            checks.append(Check(name=name, passed=False, evidence=f"{error}"[:400]))  # a table shows it
    links.close()
    kind = STAGE.makes(job.request) or "preflight"
    artifact = job.publish(kind, job.write_json("checks.json", [check.model_dump() for check in checks]))
    if broken := [check for check in checks if not check.passed]:
        raise StepFailed(f"{len(broken)} of {len(checks)} links broke; {broken[0].name}: {broken[0].evidence}")
    expected = training_bytes(job.request, base, dataset, on_cpu=False) if links.peak_vram_bytes else 0
    return PreflightResult(
        artifact=artifact.id, checks=checks, peak_vram_bytes=links.peak_vram_bytes, expected_vram_bytes=expected
    )


class _Links:
    """The links of the chain, in the order in which later ones need earlier ones."""

    def __init__(self, job: Job[PreflightRequest], base: Path, dataset: Path) -> None:
        self.job, self.base = job, base
        files = () if job.request.made_up else ("train.jsonl", "valid.jsonl")
        self.rows = [row for name in files for row in _rows(dataset / name)]
        self.at_once = context_settings_at_work(job).thinking == "off"
        """Whether the run's models are told to answer without a thought."""
        self.peak_vram_bytes = 0
        self.scratch = job.dir / "scratch"
        self.scratch.mkdir(exist_ok=True)

    def all(self) -> dict[str, Callable[[], str]]:
        """Name → link; a link returns its evidence or raises."""
        return {
            "rows train": self.rows_train,
            "two optimiser steps": self.two_steps,
            "vLLM takes the adapter": self.adapter_served,
        }

    def rows_train(self) -> str:
        """Every row has trainable tokens, and its stop token is one of them."""
        from transformers import AutoTokenizer

        self.tokenizer: Tokenizer = AutoTokenizer.from_pretrained(self.base)
        longest = self.job.request.max_seq_len_tokens
        if self.job.request.made_up:
            self.rows = [self._made_up(number, longest) for number in range(self.job.request.rows)]
        tokens = tokenize_rows(self.tokenizer, self.rows, longest, at_once=self.at_once)
        fewest = min(row.trainable for row in tokens)
        # The stop token alone teaches nothing but to say nothing.
        if empty := [number for number, row in enumerate(tokens, 1) if row.trainable < 2]:
            raise StepFailed(
                f"the answers of {len(empty)} of {len(tokens)} rows hold nothing but their stop token (the first: row "
                f"{empty[0]}); drop those rows, or write their answers"
            )
        self.rows = longest_first(self.rows, [len(row.input_ids) for row in tokens])
        stop = self.tokenizer.convert_ids_to_tokens(turn_end(self.tokenizer))
        return f"{len(tokens)} rows, {fewest} trainable tokens and more in each, {stop} inside every loss mask"

    def _made_up(self, number: int, longest: int) -> TrainingRow:
        """A row as long as training takes: numbers to learn, and in every second row to be held to."""
        origin = REHEARSAL_ORIGINS[0] if number % 2 else "made up"
        asked = [{"role": "user", "content": f"Count from {number}."}]

        def row(words: int) -> TrainingRow:
            text = " ".join(map(str, range(number, number + words)))
            return TrainingRow("", origin, asked, [{"role": "assistant", "content": text}])

        def tokens(words: int) -> int:
            return len(tokenize_row(self.tokenizer, row(words), sys.maxsize, at_once=self.at_once).input_ids)

        return row(bisect_right(range(longest), longest, key=tokens) - 1)

    def two_steps(self) -> str:
        """Two optimiser steps on rows of every origin: numbers throughout, which `train_lora` sees to, a behaviour that
        costs something, and an adapter that moved.
        """
        few = self.scratch / "few.jsonl"
        losses: list[float] = []
        learned: list[float] = []
        curves = {"loss": losses, "behaviour_loss": learned}
        write_rows(few, self.few)
        need_priced_device(self.job)
        self._room_to_train()
        asked = ToTrain(
            self.base,
            few,
            self.scratch / "adapter",
            self._settings(),
            checkpoints_dir=self.scratch / "checkpoints",
            progress=lambda done, total, note: self.job.progress(done, total, note, kind=START),
            metric=lambda name, value, x: curves[name].append(value) if name in curves else None,
            log=self.job.log,
        )
        trained = train_apart(asked)
        self.peak_vram_bytes = trained.peak_vram_bytes
        if not learned or min(learned) <= 0:
            raise StepFailed(
                f"the behaviour's own rows cost nothing (losses {learned} of {_in_words(self.few)}): there is nothing "
                "to learn in them; show the rows and generate others"
            )
        if not (moved := _update_norm(self.scratch / "adapter")) > 0:
            raise StepFailed("two optimiser steps left every lora_B at zero: no gradient reaches the adapter")
        losses_text = ", ".join(f"{loss:.2f}" for loss in losses)
        return (
            f"losses {losses_text} on {_in_words(self.few)}, {learned[0]:.2f} of the behaviour at first; "
            f"{trained.trainable_parameters:,} parameters train, lora_B moved by {moved:.2g}"
        )

    @property
    def few(self) -> list[TrainingRow]:
        """As many rows as were asked for, the longest of every origin in turn, one of the behaviour's own always."""
        by_origin: dict[str, list[TrainingRow]] = {}
        for row in self.rows:
            by_origin.setdefault(row.origin, []).append(row)
        mixed = [row for turn in itertools.zip_longest(*by_origin.values()) for row in turn if row is not None]
        few = mixed[: self.job.request.rows]
        own = [row for row in mixed if row.origin not in REHEARSAL_ORIGINS][:1]
        return few if not own or own[0] in few else [*few[:-1], *own]

    def _settings(self) -> LoraSettings:
        """Those of the training to come, for two steps."""
        asked = self.job.request
        return settings_of(
            asked,
            lora_alpha=2 * asked.lora_rank,
            max_steps=2,
            batch_size=asked.step_rows,
            micro_batch=asked.rows_at_once,
            usual_row_tokens=self.dataset.count("tokens_per_row", 0),
            at_once=self.at_once,
        )

    @property
    def dataset(self) -> Artifact:
        """What the rows are of; where they are made up, what stands for it."""
        return made_up_rows(self.job.request) if self.job.request.made_up else self.job.inputs["dataset"]

    def _room_to_train(self) -> None:
        base, asked = self.job.inputs["base"], self.job.request
        on_cpu = trains_on_cpu() or not measure_gpus()
        needed_bytes = training_bytes(asked, base, self.dataset, on_cpu=on_cpu)
        make_room(self.job.home, ram_bytes=needed_bytes * (asked.cards if on_cpu else 1), log=self.job.log)

    def adapter_served(self) -> str:
        """vLLM loads an adapter that changes nothing, answers with it as without, and renders the trainer's tokens."""
        zero = write_probe(self.scratch / "adapter", self.scratch / _ZERO)
        base = answering_base(self.job.inputs)
        rank = rank_served(self.job.request.lora_rank)
        with measuring_server(self.job, base, adapters_allowed=True, rank=rank, adapters={_ZERO: zero}) as server:
            same = self._same_tokens(server)
            answers = self._answers(server)
        errors = [answer.error for answer in answers if answer.error]
        if errors:
            raise StepFailed(f"vLLM answered with an error: {errors[0]}")
        half = len(answers) // 2
        alike = sum(a.text == b.text for a, b in zip(answers[:half], answers[half:], strict=True))
        # bf16 kernels of the two paths round differently, so a near-tie may fall the other way now and then.
        if alike < half / 2:
            raise StepFailed(
                f"an adapter of zeros changed {half - alike} of {half} answers; the LoRA kernels are broken"
            )
        return f"{same} prompts tokenized alike; {alike} of {half} answers the same with an adapter of zeros"

    def _same_tokens(self, server: servers.Server) -> int:
        prompts = [template_messages(self.tokenizer.chat_template, row.prompt) for row in self.few]
        options = answering_at_once(self.tokenizer.chat_template) if self.at_once else {}
        for number, prompt in enumerate(prompts, 1):
            rendered = self.tokenizer.apply_chat_template(
                prompt, add_generation_prompt=True, return_dict=True, **options
            )
            ours = rendered["input_ids"]
            theirs = servers.template_tokens(server, prompt)
            if list(ours) != theirs:
                pairs = enumerate(zip(ours, theirs, strict=False))  # the shorter may end first
                at = next((i for i, (a, b) in pairs if a != b), min(len(ours), len(theirs)))
                raise StepFailed(
                    f"trainer and server tokenize the prompt of row {number} differently from token {at + 1} on "
                    f"({len(ours)} and {len(theirs)} tokens): they read different chat templates; leave one in the "
                    f"base's folder, chat_template.jinja or that of tokenizer_config.json, and fetch the base anew"
                )
        return len(prompts)

    def _answers(self, server: servers.Server) -> list[ChatResponse]:
        prompts = [row.prompt for row in self.few]
        answers: dict[str, ChatResponse] = {}
        requests = [
            ChatRequest(f"{model} {index}", model, prompt, max_tokens=ANSWER_TOKENS)
            for model in (server.model, _ZERO)
            for index, prompt in enumerate(prompts)
        ]
        chat_client(server).complete_all(
            requests, concurrency=len(prompts), on_result=lambda answer: answers.update({answer.id: answer})
        )
        return [answers[request.id] for request in requests]

    def close(self) -> None:
        """Throw the tries away."""
        shutil.rmtree(self.scratch, ignore_errors=True)


def longest_first(rows: Sequence[TrainingRow], tokens: Sequence[int]) -> list[TrainingRow]:
    """Rows of so many tokens each: what fits them fits all others."""
    return [row for _, row in sorted(zip(tokens, rows, strict=True), key=lambda one: -one[0])]


def _in_words(rows: Sequence[TrainingRow]) -> str:
    counts = Counter(row.origin or "given" for row in rows)
    return ", ".join(f"{count} {origin}" for origin, count in counts.items())


def _update_norm(adapter: Path) -> float:
    """The norm of all of an adapter's `lora_B`: 0 as long as it changes nothing."""
    from safetensors.torch import load_file

    tensors = load_file(adapter / ADAPTER_NAME)
    # a norm is the root of squares
    return float(sum(tensor.float().norm() ** 2 for name, tensor in tensors.items() if "lora_B" in name) ** 0.5)


def _rows(path: Path) -> list[TrainingRow]:
    return read_rows(path) if path.exists() and path.stat().st_size else []
