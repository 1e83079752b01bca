"""How a task measures: the device's name and rates, its peak, what is free; and the models and rows that it makes."""

from __future__ import annotations

import gc
import resource
import string
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from tests.gpu.table import MODELS, Check
from tunesmith.memory.errors import StepFailed
from tunesmith.memory.records import TrainingRow
from tunesmith.tools.core.machine import chosen_gpu
from tunesmith.tools.core.rates import Rates
from tunesmith.tools.core.stage import CPU
from tunesmith.tools.data.rows import write_rows
from tunesmith.tools.machine.device import computes_on_cpu
from tunesmith.tools.machine.gpus import measure_gpus
from tunesmith.tools.machine.probe import keep_rates, measured_rates
from tunesmith.tools.machine.probe_job import measure_rates
from tunesmith.tools.training.rows import tokenize_row

if TYPE_CHECKING:
    from tunesmith.tools.training.library import Tokenizer

_SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
_TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>' + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
_CONTROL, _NORMAL = 3, 1
_NO_END = 1 << 20


def device_name(check: Check) -> str:
    """As rates are kept by it."""
    card = chosen_gpu(measure_gpus()) if check.on_card else None
    return card.name if card else CPU


def rates_of(check: Check) -> Rates:
    """What was measured of the device, by now at the latest."""
    name = device_name(check)
    if name not in measured_rates(check.home):
        need_device(check)
        keep_rates(check.home, name, measure_rates(check.home))
    return measured_rates(check.home)[name]


def need_device(check: Check) -> None:
    """Raises StepFailed where the card is to be measured and torch would compute on the CPU instead."""
    if check.on_card and computes_on_cpu():
        import torch

        raise StepFailed(f"torch {torch.__version__} (CUDA {torch.version.cuda}) sees no card; see nvidia-smi")


@dataclass(slots=True)
class Peak:
    """The most that was taken in a `with peak(…)`, in bytes."""

    bytes: int = 0


@contextmanager
def peak(check: Check) -> Iterator[Peak]:
    """What torch's allocator reserved at its most on the card; on the CPU what the process grew by."""
    found, process = Peak(), psutil.Process()
    if check.on_card:
        import torch

        let_go(check)
        torch.cuda.reset_peak_memory_stats()
        kept = torch.cuda.memory_reserved()
    else:
        kept = process.memory_info().rss
    try:
        yield found
    finally:
        most = torch.cuda.max_memory_reserved() if check.on_card else _most_resident()
        found.bytes = max(0, most - kept)


def _most_resident() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def let_go(check: Check) -> None:
    """Give back what nobody refers to any more, as another process needs it next."""
    gc.collect()
    if check.on_card:
        import torch

        torch.cuda.empty_cache()


def make_model(check: Check, name: str, config: Mapping[str, Any]) -> Path:
    """A model of random weights by a config, in bf16, with a tokenizer of bytes and a template; made once."""
    folder = check.dir / MODELS / name
    if (folder / "tokenizer.json").is_file():  # written last
        return folder
    need_device(check)
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(17)
    described = AutoConfig.for_model(**config)
    with torch.device(check.device):
        model = AutoModelForCausalLM.from_config(described, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    del model
    let_go(check)
    _write_tokenizer(folder)
    return folder


def _write_tokenizer(folder: Path) -> None:
    """One token a byte: a text of so many letters has as many tokens."""
    import json

    from tokenizers import pre_tokenizers

    from tunesmith.tools.models.gguf import build_tokenizer

    tokens = _SPECIAL + sorted(pre_tokenizers.ByteLevel.alphabet())
    types = [_CONTROL] * len(_SPECIAL) + [_NORMAL] * (len(tokens) - len(_SPECIAL))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": _SPECIAL[1],
        "eos_token": _SPECIAL[2],
        "pad_token": _SPECIAL[0],
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "chat_template.jinja").write_text(_TEMPLATE)
    build_tokenizer(tokens, types, [], "smollm").save(str(folder / "tokenizer.json"))


def make_rows(check: Check, model: Path, count: int, tokens: int) -> Path:
    """A file of rows of exactly so many tokens of a made model's tokenizer, nearly all of them learned."""
    from transformers import AutoTokenizer

    path = check.dir / MODELS / f"rows-{count}-{tokens}.jsonl"
    tokenizer: Tokenizer = AutoTokenizer.from_pretrained(model)
    around = len(tokenize_row(tokenizer, _row(0, 1), _NO_END).input_ids) - 1
    write_rows(path, [_row(number, tokens - around) for number in range(count)])
    return path


def _row(number: int, letters: int) -> TrainingRow:
    """An answer of so many bytes, another one for each number."""
    word = string.ascii_lowercase[number % 26] * 7
    text = " ".join([word] * (letters // 8 + 1))[:letters]
    prompt = [{"role": "user", "content": f"{number:03}?"}]
    return TrainingRow(f"r{number}", "", prompt, [{"role": "assistant", "content": text}])
