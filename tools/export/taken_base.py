"""An existing quantized checkpoint becomes the quantized base: fetched, cleaned, and held against the base.

Its weights and its quantization_config are taken. Everything else (config, tokenizer, chat template, generation
config) is the base's own, so that both are asked in the same words, and a server computes with the same settings.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from tunesmith.memory.errors import StepFailed
from tunesmith.memory.files import atomic_write
from tunesmith.tools.core.job import Job
from tunesmith.tools.export.audit import CARRIED, Audit
from tunesmith.tools.export.audit_taken import audit_taken
from tunesmith.tools.models.base import BaseRequest
from tunesmith.tools.models.base_job import Pristine, folder_digest, materialize_folder, materialize_hub
from tunesmith.tools.models.folder import fingerprint, read_config
from tunesmith.tools.models.hub import hub_config
from tunesmith.tools.models.model_files import LICENSES, drop_odd_texts
from tunesmith.tools.models.packing import Packing
from tunesmith.tools.models.quantized_base import FOLDER_PIN, Existing, Source, refuse_other
from tunesmith.tools.models.tensor_file import INDEX_NAME, weight_files

_NAME_LETTERS = 60


def existing_at_work(job: Job[BaseRequest]) -> Existing:
    """The checkpoint that was agreed to. Raises StepFailed where a folder was changed since the yes."""
    source = Source.of(job.request.quantized)
    if source.revision:
        return Existing(source)
    folder = Path(source.name).expanduser()
    now = fingerprint(folder)
    job.agreed_folder(FOLDER_PIN, folder, now)
    return Existing(source, fingerprint=now)


def copy_name(made: Pristine, source: Source) -> str:
    """Of its copy below models/: what it was held against, and which bytes it is."""
    folder = Path(source.name).expanduser().resolve()
    called = source.name.replace("/", "--") if source.revision else folder.name
    which = source.revision[:12] or folder_digest(folder)
    return f"{made.path.name}-{made.sha256[:12]}-from-{called[-_NAME_LETTERS:]}-{which}"


def take(job: Job[BaseRequest], made: Pristine, source: Source, folder: Path) -> Audit:
    """Fill a folder with the checkpoint. Raises BadInput or StepFailed for any that is not the base quantized; what
    lies in the folder then is not to be used.
    """
    if source.revision:
        refuse_other(hub_config(source.name, source.revision), made.folder.config, source)
        materialize_hub(source.name, source.revision, folder, job.progress, need_chat_template=False)
    else:
        origin = Path(source.name).expanduser().resolve()
        refuse_other(read_config(origin), made.folder.config, source)
        materialize_folder(origin, folder, job.progress, need_chat_template=False)
    drop_odd_texts(folder)
    config = json.loads((folder / "config.json").read_text())
    refuse_other(config, made.folder.config, source)
    _clean(folder, made.path, {**made.folder.config, "quantization_config": config["quantization_config"]})
    audit = audit_taken(folder, made.path, Packing.of(config, source.title), against=made.name, progress=job.progress)
    job.log(audit.summary)
    if audit.refusal:
        raise StepFailed(
            f"{source.title}: {audit.refusal}; nothing of it was kept: give a checkpoint that was made from this base, "
            "or leave quantized out, and the base is rounded here"
        )
    return audit


def _clean(folder: Path, base: Path, config: dict[str, object]) -> None:
    """Keep the weights, their index and a licence; the rest is the base's."""
    weights = weight_files(folder)
    for file in folder.iterdir():
        if file not in weights and file.name != INDEX_NAME and file.name not in LICENSES:
            shutil.rmtree(file) if file.is_dir() else file.unlink()
    for name in CARRIED:
        if (base / name).is_file():
            shutil.copyfile(base / name, folder / name)
    atomic_write(folder / "config.json", json.dumps(config, indent=2) + "\n")
