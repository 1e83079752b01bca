"""release at work: the files are written, then read again by other code than wrote them, and only then recorded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tunesmith.memory.errors import GateRefused, StepFailed
from tunesmith.memory.files import MANIFEST, atomic_write
from tunesmith.memory.records import Artifact
from tunesmith.tools.core.format import one_line
from tunesmith.tools.core.job import Job
from tunesmith.tools.export.audit_lineage import audit_refusals
from tunesmith.tools.export.deploy import answers_at_once
from tunesmith.tools.export.offloaded_model import offloaded_model
from tunesmith.tools.models.chat_template import answering_at_once, template_text, thoughtless
from tunesmith.tools.models.shape import ModelShape
from tunesmith.tools.models.turn_end import stop_tokens
from tunesmith.tools.release.gguf_file import Progress, TensorType, read_back, write_gguf
from tunesmith.tools.release.go_template import CONVERSATIONS, GoTemplate, proven_template
from tunesmith.tools.release.model_card import LICENSE_FILES, license_of, model_card
from tunesmith.tools.release.modelfile import modelfile
from tunesmith.tools.release.release import ReleaseRequest, ReleaseResult, whole_gguf_bytes

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

_LEAST_AGREEMENT = 0.5
"""Of preferred tokens, below which no rounding is the reason: a wrong order of rows leaves next to none."""
_MOST_KL: Mapping[TensorType, float] = {"BF16": 1e-3, "F16": 1e-3, "Q8_0": 0.1}
"""In nats a token: 16 bits round next to nothing, and 8 little; what fewer cost is recorded, and nobody's to forbid."""
_TEXT_TOKENS = 64
"""Enough positions to tell a wrong order of rows, in seconds on two cores."""


class Compared(NamedTuple):
    """How a GGUF answers beside the model that it was made from."""

    argmax_agreement: float
    kl_a_token: float


def run(job: Job[ReleaseRequest]) -> ReleaseResult:
    """Write what was asked for, prove it, and record it. Raises GateRefused for a model that fails its audit."""
    model, base = job.verified("model"), job.verified("base")
    job.progress(0, 1, "auditing the saved tensors")
    if odd := audit_refusals(job.store, model, job.request.arm):
        raise GateRefused(f"release {job.request.arm}: {'; '.join(odd)}")
    return _gguf(job, model) if job.request.format == "gguf" else _hub(job, model, base)


def _gguf(job: Job[ReleaseRequest], model: Artifact) -> ReleaseResult:
    out_dir, kind = job.dir / "gguf", job.request.tensor_type
    file = out_dir / f"model-{kind}.gguf"  # not by the model's name, which its Modelfile would have to quote
    at_once = answers_at_once(job.store, model.run)
    template, statement = ollama_template(model.path, at_once=at_once)
    if job.sealed(out_dir) is None:
        shutil.rmtree(out_dir, ignore_errors=True)  # of an attempt that was cut off
        out_dir.mkdir(parents=True)
        adds_bos = template.adds_bos if template else begins_with_bos(model.path)
        name = one_line(f"{job.run}-{model.meta.get('name', model.id)}-{kind}")
        write_gguf(model.path, file, kind, job.progress, name=name, adds_bos=adds_bos, at_once=at_once)
        atomic_write(out_dir / "Modelfile", modelfile(file.name, template, statement, stop_words(model.path)))
    readback = read_back(model.path, file, kind, job.progress, texts=spoken_texts())
    left_out = logits_left_out(model.path)
    compared = None if left_out else compare_gguf(model.path, file, kind, job.progress)
    job.log(f"read back: {readback}; logits: {left_out or compared}; template: {statement}")
    artifact = job.publish("release", out_dir, meta={"format": "gguf", "tensor_type": kind, "serves": model.id})
    return ReleaseResult(
        artifact=artifact.id, path=str(file), format="gguf", bytes=readback.bytes, files=_files(out_dir),
        template=statement, read_back=readback, logits_left_out=left_out, **(compared._asdict() if compared else {}),
    )  # fmt: skip


def _hub(job: Job[ReleaseRequest], model: Artifact, base: Artifact) -> ReleaseResult:
    out_dir = job.dir / "hub"
    if job.sealed(out_dir) is None:
        shutil.rmtree(out_dir, ignore_errors=True)  # of an attempt that was cut off
        out_dir.mkdir(parents=True)
        files = [file for file in sorted(model.path.iterdir()) if file.is_file() and file.name != MANIFEST]
        files += [base.path / name for name in LICENSE_FILES if (base.path / name).is_file()]
        for done, file in enumerate(files):
            job.progress(done, len(files), f"copying {file.name}")
            shutil.copyfile(file, out_dir / file.name)
        at_once = answers_at_once(job.store, model.run)
        if at_once and (own := template_text(model.path)):
            atomic_write(out_dir / "chat_template.jinja", thoughtless(own, default=True))
        atomic_write(out_dir / "README.md", model_card(job.store, model, base, job.request.arm))
    artifact = job.publish("release", out_dir, meta={"format": "hub", "serves": model.id})
    return ReleaseResult(
        artifact=artifact.id, path=str(out_dir), format="hub", bytes=artifact.bytes, files=_files(out_dir),
        license=license_of(base).get("license", ""),
    )  # fmt: skip


def _files(folder: Path) -> tuple[str, ...]:
    return tuple(sorted(file.name for file in folder.iterdir()))


def ollama_template(folder: Path, *, at_once: bool = False) -> tuple[GoTemplate | None, str]:
    """The template of a model's folder for Ollama, proven equal to its own, and that in words, or why there is none.

    `at_once`: to its own with thoughts switched off, where it has a switch.
    """
    from transformers import AutoTokenizer

    if not template_text(folder):
        return None, "none: the base has no chat template"
    if "strftime_now" in template_text(folder):
        return (
            None,
            "none: the base's template writes the day's date, which Ollama's cannot; ask through /v1/completions",
        )
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    try:
        own = tokenizer.get_chat_template()
        options = answering_at_once(own) if at_once else {}
        template = proven_template(own, {**tokenizer.special_tokens_map, **options})
    except ValueError as error:  # BadInput, or transformers' own where none of several templates is the usual one
        return None, f"none: {one_line(error)}; without one Ollama takes what the GGUF carries"
    told = " without thoughts" if options else ""
    return template, f"equal to the base's{told} on {len(CONVERSATIONS)} conversations"


def begins_with_bos(folder: Path) -> bool:
    """Whether a model's tokenizer puts its first token before a text."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    return tokenizer.bos_token_id is not None and tokenizer("a").input_ids[0] == tokenizer.bos_token_id


def stop_words(folder: Path) -> list[str]:
    """The tokens at which a model was taught to end."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    stops = sorted(stop_tokens(folder, tokenizer.eos_token_id))
    return [str(tokenizer.convert_ids_to_tokens(number)) for number in stops]


def spoken_texts() -> list[str]:
    """Texts with signs of every kind, to ask tokenizers and models for."""
    return ["\n".join(message["content"] for message in chat) for chat in CONVERSATIONS]


def logits_left_out(folder: Path) -> str:
    """Why a GGUF of a model is not loaded whole, with the numbers; empty where it fits, in 32 bits as it is loaded."""
    import psutil

    parameters = ModelShape.of(json.loads((folder / "config.json").read_text())).parameters
    needed = whole_gguf_bytes(parameters)
    free = psutil.virtual_memory().available + psutil.swap_memory().free + psutil.Process().memory_info().rss
    if needed <= free:
        return ""
    return (
        f"it was not loaded whole: that needs {needed / 2**30:.1f} GiB of RAM and swap, {free / 2**30:.1f} GiB is "
        "free; every tensor was read back"
    )


def compare_gguf(folder: Path, file: Path, kind: TensorType, progress: Progress) -> Compared:
    """Logits of a GGUF as transformers loads it against those of the model it was made from, in fp32.

    Raises StepFailed where the two are farther apart than rounding to its type explains.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    progress(0, 2, "logits of the model, layer by layer")
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    texts = [tokenizer(text).input_ids[:_TEXT_TOKENS] for text in spoken_texts()]
    with offloaded_model(folder, torch.float32, file.parent) as model:
        wanted = _logits(model, texts)
    progress(1, 2, "loading the GGUF with transformers")
    loaded = AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, dtype=torch.float32, local_files_only=True
    )
    logits = _logits(loaded.eval(), texts)
    agreement = float((logits.argmax(-1) == wanted.argmax(-1)).float().mean())
    truth, log_probs = wanted.log_softmax(-1), logits.log_softmax(-1)
    divergence = float((truth.exp() * (truth - log_probs)).sum(-1).mean())
    progress(2, 2, "compared")
    most = _MOST_KL.get(kind, float("inf"))  # what fewer bits cost is nobody's to forbid
    if agreement < _LEAST_AGREEMENT or divergence > most:
        raise StepFailed(
            f"the GGUF prefers the model's next token at {agreement:.0%} of {len(logits)} positions, {divergence:.2g} "
            f"nats a token from it ({_LEAST_AGREEMENT:.0%} and {most:g} are wanted); report this, and use format=hub"
        )
    return Compared(round(agreement, 6), round(divergence, 8))


def _logits(model: PreTrainedModel, texts: Sequence[Sequence[int]]) -> Tensor:
    """At every position of every text, (position, vocab). Filled up on the right, which changes nothing before it."""
    import torch

    longest = max(map(len, texts))
    ids = torch.tensor([[*text, *([0] * (longest - len(text)))] for text in texts])
    with torch.inference_mode():
        # No cache: one pass, and nothing is generated.
        logits = model(ids, use_cache=False).logits.float()  # (text, seq, vocab)
    return torch.cat([logits[number, : len(text)] for number, text in enumerate(texts)])
