"""Whether a folder is a model that may be loaded: looked at as files only, nothing of it is imported or run.

Refused: code that would come along (`auto_map`), pickles, and folders that lack what later stages need. Covers the
layout of transformers' `save_pretrained`; it does not read the weights themselves.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from pathlib import Path
from typing import NamedTuple

from tunesmith.memory.errors import BadInput
from tunesmith.memory.files import read_manifest
from tunesmith.tools.core.local_paths import is_there
from tunesmith.tools.models.tensor_file import INDEX_NAME, indexed_shards, read_header

PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")
ON_TOP = "adapter_config.json"
"""Beside a base, transformers would load the adapter that it describes without being asked."""
_MAX_JSON_BYTES = 64 << 20
_WHOLE_BYTES = 1 << 20
_COMMIT = re.compile(r"[0-9a-f]{40}")


class ModelFolder(NamedTuple):
    """What the files of a model folder say about it."""

    path: Path
    config: dict[str, object]
    weight_bytes: int
    parameters: int

    @property
    def architecture(self) -> str:
        """The class that loads it, as its config names it."""
        named = self.config.get("architectures")
        return str(named[0]) if isinstance(named, list) and named else "unknown"


def check_model_folder(path: Path, *, need_chat_template: bool = True) -> ModelFolder:
    """The facts of a loadable chat model folder; raises BadInput with one line for anything else."""
    path = Path(path)
    if not (is_there(path) and path.is_dir()):
        raise BadInput(f"{str(path)[:300]} is not a folder; give a model folder with config.json and safetensors files")
    if not (path / "config.json").is_file():
        raise BadInput(f"{path} is not a model folder: it has no config.json")
    config = _read_json(path / "config.json")
    if not config.get("model_type"):
        raise BadInput(f"{path}/config.json names no model_type: it is not a transformers model")
    _refuse_code(path)
    _refuse_on_top(path)
    files = _weights(path)
    if not any((path / name).is_file() for name in _TOKENIZER_FILES):
        raise BadInput(f"{path} has no tokenizer (tokenizer.json); copy it from the model's origin")
    if need_chat_template and not _has_chat_template(path):
        raise BadInput(f"{path} has no chat template (chat_template.jinja); take the model's instruct version")
    parameters = sum(math.prod(spec.shape) for file in files for spec in read_header(file).values())
    return ModelFolder(path, config, sum(file.stat().st_size for file in files), parameters)


def fingerprint(path: Path) -> str:
    """Digest of what a model folder holds, in well under a second, for a plan to be bound to.

    Small files and the headers of weights go in by their bytes, the weights themselves by inode, size and the times
    that change with any write to them; hashing them all takes minutes, and is what the work itself does.
    """
    digest = hashlib.sha256()
    for file in sorted(path.iterdir()):
        if not file.is_file():
            continue
        with file.open("rb") as stream:
            head = stream.read(_WHOLE_BYTES)
        stat = file.stat()
        large = [stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns] if stat.st_size > _WHOLE_BYTES else []
        digest.update(json.dumps([file.name, stat.st_size, *large, hashlib.sha256(head).hexdigest()]).encode())
    return digest.hexdigest()


def sealed_as(path: Path) -> str:
    """The digest in a model folder's manifest, which holds wherever it lies; empty where it was never sealed."""
    manifest = read_manifest(path)
    return manifest["sha256"] if manifest else ""


def folder_pins(name: str, fingerprint: str, sealed: str) -> dict[str, str]:
    """What a plan pins of a folder, for `Job.agreed_folder` to hold it against."""
    return {pin: held for pin, held in ((name, fingerprint), (f"{name}, sealed", sealed)) if held}


def check_hub_revision(revision: str | None, model_id: str) -> str:
    """`revision` when it is a full commit hash; raises BadInput otherwise, because a branch moves."""
    if revision is None or not _COMMIT.fullmatch(revision):
        raise BadInput(
            f"{model_id}: revision {revision!r} is not a commit; give the 40 hex digits shown on its hub page"
        )
    return revision


def may_name_code(name: str) -> bool:
    """Whether a file of this name is one that can carry an `auto_map`: any JSON but the vocabularies."""
    return name.endswith(".json") and name not in ("tokenizer.json", "vocab.json")


def has_auto_map(document: object) -> bool:
    """Whether a JSON document names code, at any depth, that would be loaded with the model."""
    return _has_key(document, "auto_map")


def _refuse_code(path: Path) -> None:
    # Every JSON file: processors and nested configs can carry auto_map as well.
    for file in sorted(path.glob("*.json")):
        if may_name_code(file.name) and has_auto_map(_read_json(file)):
            raise BadInput(
                f"{file} has an auto_map: loading it would run code from the model; take a version without it"
            )


def _refuse_on_top(path: Path) -> None:
    if (path / ON_TOP).exists():
        raise BadInput(
            f"{path} holds {ON_TOP}: that adapter would be loaded on top of the base; remove it, or merge it first"
        )


def _weights(path: Path) -> list[Path]:
    files = sorted(path.glob("*.safetensors"))
    if odd := [file for file in files if not file.is_file()]:
        raise BadInput(f"{odd[0]} is not a file; copy it again")
    if files:
        index = path / INDEX_NAME
        names = indexed_shards(_read_json(index), index) if index.is_file() else set()
        if missing := sorted(name for name in names if not (path / name).is_file()):
            raise BadInput(f"{path} lacks {missing[0]} ({len(missing)} of {len(names)} shards); copy it again")
        return files
    pickles = sorted(file.name for pattern in PICKLES for file in path.glob(pattern))
    if pickles:
        raise BadInput(
            f"{path} has its weights only as a pickle ({pickles[0]}), which can run code; "
            "take or convert to safetensors"
        )
    raise BadInput(f"{path} has no *.safetensors weights")


def _has_chat_template(path: Path) -> bool:
    if (path / "chat_template.jinja").is_file() or (path / "chat_template.json").is_file():
        return True
    config = path / "tokenizer_config.json"
    return config.is_file() and bool(_read_json(config).get("chat_template"))


def _has_key(value: object, key: str) -> bool:
    left = [value]  # a stack of our own: JSON may be nested deeper than functions may call each other
    while left:
        value = left.pop()
        if isinstance(value, dict):
            if key in value:
                return True
            left += value.values()
        elif isinstance(value, list):
            left += value
    return False


def _read_json(path: Path) -> dict[str, object]:
    try:
        if not path.is_file() or path.stat().st_size > _MAX_JSON_BYTES:
            raise ValueError(f"no file of at most {_MAX_JSON_BYTES >> 20} MiB")
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(f"{path} is not readable JSON: {error}") from error
    if not isinstance(value, dict):
        # special_tokens maps and the like are objects; a list here is another kind of file.
        return {}
    return value
