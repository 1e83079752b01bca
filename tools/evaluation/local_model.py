"""Answers from one transformers process, its adapter switched on and off: where vLLM cannot serve the adapter.

Slow, and greedy only; what it gives is the same comparison: one process, one base, nothing different but the adapter.
A base that is measured at 4 bits is loaded as NF4 on a card, and on the CPU as its quantized base, unpacked to 16 bits.
Tool calls are read in the form that vLLM's hermes parser reads. Not covered, and refused by name: sampling, repeats,
stops, penalties, response_format, a forced tool choice, log probabilities.
"""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith.memory.errors import StepFailed
from tunesmith.memory.records import Artifact
from tunesmith.tools.evaluation.asking import Answerer, Keep, Question
from tunesmith.tools.evaluation.protocol import Key, Sampling
from tunesmith.tools.models.chat_template import answering_at_once, template_messages, template_sha256
from tunesmith.tools.models.measuring import QUANTIZED_BASE
from tunesmith.tools.models.shape import ModelShape
from tunesmith.tools.serving.client import ChatResponse
from tunesmith.tools.serving.model_server import precision_label
from tunesmith.tools.serving.spec import precision_of
from tunesmith.tools.suites.case import Case, Suite
from tunesmith.tools.training.model import load_base

if TYPE_CHECKING:
    from tunesmith.tools.training.library import Model, Tokenizer

_BATCH = 16
"""Questions at once: they are padded to the longest, and each has a cache of its own."""
# What also changes a greedy answer → its value that changes nothing.
_STEERS: Mapping[str, object] = {
    "stop": [], "response_format": {"type": "text"}, "presence_penalty": 0, "frequency_penalty": 0,
    "repetition_penalty": 1,
}  # fmt: skip
_TOOL_CALL = re.compile(r"<tool_call>\s*(\{.*?\})\s*</tool_call>", re.DOTALL)


class LocalModel:
    """A base with an adapter on it, loaded once."""

    def __init__(self, inputs: Mapping[str, Artifact], adapter_dir: Path) -> None:
        """Load both; seconds for a small model. A step's `inputs` say which base, and whether it is measured at 4 bits.

        Raises StepFailed where transformers does not read the 4-bit base.
        """
        import torch
        from peft import PeftModel
        from transformers import AutoTokenizer

        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        folder = inputs["base"].path
        # left: answers begin where prompts end
        self.tokenizer: Tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, padding_side="left")
        base, self.precision = _loaded(inputs, self.device)
        self.model: Model = PeftModel.from_pretrained(base, adapter_dir, torch_device=self.device).eval()
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token_id = self.tokenizer.eos_token_id

    def key(self, base: Artifact, suite: Suite, sampling: Sampling) -> Key:
        """The comparability key of its answers, the adapter left open."""
        import peft
        import torch
        import transformers

        engine = f"transformers {transformers.__version__}, peft {peft.__version__}, torch {torch.__version__}"
        return {
            "engine": engine,
            "engine_arguments": f"greedy, batches of {_BATCH}",
            "device": self.device,
            "lora": "switched on and off in one process",
            "weights": base.sha256,
            "precision": self.precision,
            "template": template_sha256(base.path),
            "adapter": "none",
            "suite": suite.sha256,
            **sampling.key,
        }

    def answers(self, sampling: Sampling) -> Answerer:
        """Questions of the arm `adapter` are answered with the adapter, those of any other without."""

        def answer(questions: Sequence[Question], keep: Keep) -> None:
            for start in range(0, len(questions), _BATCH):
                batch = questions[start : start + _BATCH]
                for question, response in zip(batch, self._generate(batch, sampling), strict=True):
                    keep(question, response)

        return answer

    def _generate(self, batch: Sequence[Question], sampling: Sampling) -> Iterator[ChatResponse]:
        import torch

        prompts = [self._prompt(question, sampling) for question in batch]
        asked = self.tokenizer(prompts, return_tensors="pt", padding=True, add_special_tokens=False).to(self.device)
        with_adapter = batch[0].arm.name == "adapter"
        switch = contextlib.nullcontext() if with_adapter else self.model.disable_adapter()
        started = time.perf_counter()
        limits = [_limit(question, sampling) for question in batch]
        with torch.inference_mode(), switch:
            generated = self.model.generate(
                **asked, max_new_tokens=max(limits), do_sample=False, pad_token_id=self.tokenizer.pad_token_id
            )
        # The batch's, for each of its answers: they come together.
        took_ms = (time.perf_counter() - started) * 1000
        prompt_width = asked["input_ids"].shape[1]
        answers = generated[:, prompt_width:].tolist()
        for question, mask, tokens, limit in zip(batch, asked["attention_mask"], answers, limits, strict=True):
            yield self._response(question, int(mask.sum()), tokens[:limit], took_ms)

    def _prompt(self, question: Question, sampling: Sampling) -> str:
        tools = list(question.case.tools) or None
        options = answering_at_once(self.tokenizer.chat_template) if sampling.thinking == "off" else {}
        messages = template_messages(self.tokenizer.chat_template, question.arm.messages(question.case))
        prompt: str = self.tokenizer.apply_chat_template(
            messages, tools=tools, tokenize=False, add_generation_prompt=True, **options
        )
        return prompt

    def _response(self, question: Question, prompt_tokens: int, tokens: list[int], took_ms: float) -> ChatResponse:
        ends = self._ends()
        stop = next((place for place, token in enumerate(tokens) if token in ends), None)
        text = self.tokenizer.decode(tokens[:stop], skip_special_tokens=True)
        calls = _tool_calls(text) if question.case.tools else []
        reason = "tool_calls" if calls else "length" if stop is None else "stop"
        return ChatResponse(
            id=question.id,
            text=_TOOL_CALL.sub("", text).strip() if calls else text,
            tool_calls=calls,
            finish_reason=reason,
            prompt_tokens=prompt_tokens,
            completion_tokens=len(tokens) if stop is None else stop + 1,
            latency_ms=took_ms,
        )

    def _ends(self) -> set[int]:
        given = self.model.generation_config.eos_token_id
        ids = given if isinstance(given, list) else [given]
        return {token for token in (*ids, self.tokenizer.eos_token_id) if token is not None}


def _limit(question: Question, sampling: Sampling) -> int:
    """Tokens that an answer may have, its thought included."""
    return int(question.case.sampled("max_tokens", sampling.max_tokens)) + sampling.thinking_tokens


def _loaded(inputs: Mapping[str, Artifact], device: str) -> tuple[Model, str]:
    """The base as it is measured, and its precision in the words of a comparability key."""
    from transformers import AutoModelForCausalLM, CompressedTensorsConfig

    base, quantized = inputs["base"], inputs.get(QUANTIZED_BASE)
    if quantized is not None and device == "cuda":
        return load_base(base.path, precision="bf16", load_in_4bit=True), "NF4 of the base"
    folder, precision = base.path, precision_of(base.path)
    options: dict[str, object] = {"device_map": {"": 0} if device == "cuda" else None}
    options |= ModelShape.of(json.loads((folder / "config.json").read_text())).attention_options
    if quantized is not None:
        folder, precision = quantized.path, f"{precision_label(quantized)}, unpacked to {precision}"
        options["quantization_config"] = CompressedTensorsConfig(dequantize=True)
    model, info = AutoModelForCausalLM.from_pretrained(
        folder, dtype="auto", local_files_only=True, output_loading_info=True, **options
    )
    if info["missing_keys"]:  # Mixtral's experts, whose names quantizing changes
        raise StepFailed(
            f"transformers does not find {min(info['missing_keys'])} in {folder.name}; make the base anew with "
            "measuring=16, or merge the adapter and evaluate the merged model"
        )
    return model, precision


def _tool_calls(text: str) -> list[dict[str, object]]:
    calls: list[dict[str, object]] = []
    for number, written in enumerate(_TOOL_CALL.findall(text)):
        try:
            call = json.loads(written)
            function = {"name": str(call["name"]), "arguments": json.dumps(call.get("arguments", {}))}
        except (ValueError, KeyError, TypeError):  # vLLM's parser takes no such call either: it stays text
            continue
        calls.append({"id": f"call-{number}", "type": "function", "function": function})
    return calls


def refuse_unanswerable(suite: Suite, sampling: Sampling, why: str = "vLLM refused the adapter") -> None:
    """Raise StepFailed, naming what and where, if a case or the step asks for what this cannot do."""
    for case in suite.cases:
        if beyond := list(_beyond(case, sampling)):
            raise StepFailed(
                f"{why}, and without vLLM answers are greedy, one a case, and nothing steers them: "
                f"case {case.case_id} asks for {', '.join(beyond)}; leave that out of the suite and of the request "
                "(temperature=0 repeats=1), or merge the adapter and evaluate the merged model"
            )


def _beyond(case: Case, sampling: Sampling) -> Iterator[str]:
    own = case.sampling
    if (temperature := case.sampled("temperature", sampling.temperature)) > 0:
        yield f"temperature={temperature:g}"
    if (repeats := max(case.repeat, sampling.repeats)) > 1:
        yield f"repeats={repeats}"
    yield from (f"{name}={own[name]!r}" for name, idle in _STEERS.items() if own.get(name, idle) != idle)
    if case.tools and case.tool_choice not in (None, "auto"):
        yield f"tool_choice={case.tool_choice!r}"
