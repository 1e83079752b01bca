"""Whether a folder is a model that may be loaded: looked at as files only, nothing of it is imported or run.

Refused: code that would come along (`auto_map`), pickles, and folders that lack what later stages need. Covers the
layout of transformers' `save_pretrained`; it does not read the weights themselves.
"""

from __future__ import annotations

import gc
import hashlib
import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

from tunesmith.memory.confined import Limits, confined_answer
from tunesmith.memory.errors import BadInput
from tunesmith.memory.files import read_manifest
from tunesmith.tools.core.local_paths import is_there
from tunesmith.tools.core.strict_json import IN_PLACE_BYTES, depth_of, parse_json
from tunesmith.tools.models.model_files import names_in, open_inside, wanted_files, wanted_names
from tunesmith.tools.models.shape import ModelShape
from tunesmith.tools.models.tensor_file import INDEX_NAME, SINGLE_NAME, header_bytes, indexed_shards, places_in

PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")
ON_TOP = "adapter_config.json"
"""Beside a base, transformers would load the adapter that it describes without being asked."""
_NO_WRITER = re.compile(r"\w+(For(MaskedLM|PreTraining|SequenceClassification|TokenClassification|QuestionAnswering"
                        r"|MultipleChoice|RewardModel)|(?<!Head)(?<!Heads)Model)")  # fmt: skip
"""transformers' names of classes without a head that writes text."""
CONFIG_BYTES = 1 << 20
"""The longest configs have some hundred kB (labels, quantized layers); tokenizers have tens of MB."""
_MAX_JSON_BYTES = 64 << 20  # twice the largest tokenizer.json that is published
_CONFIG_DEPTH = 32
"""Far more than configs have: whoever walks a record recurses."""
_WHOLE_BYTES = 1 << 20
"""Files up to it go into a fingerprint whole: all texts of a model but its tokenizer do, no weights."""
_COMMIT = re.compile(r"[0-9a-f]{40}")
_LIMITS = Limits(cpu_s=10.0, memory_bytes=1 << 30)
"""The largest public model, 91,000 tensors in 163 files, takes 0.5 s and 70 MB; the worst header found 1.3 and 400."""


_ONLY_GGUF = "has its weights only as a GGUF ({}), which is not trained; give the safetensors that it was made from"


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


class _LargeLook(Exception):
    """There is more to parse than the process that asks should."""


def check_model_folder(path: Path) -> ModelFolder:
    """The facts of a loadable chat model folder; raises BadInput with one line for anything else.

    What is more than a megabyte to parse is looked at in a confined child.
    """
    path = Path(path)
    if not (is_there(path) and path.is_dir()):
        raise BadInput(f"{str(path)[:300]} is not a folder; give a model folder with config.json and safetensors files")
    try:
        config, *sizes = _look(path, IN_PLACE_BYTES)
    except _LargeLook:  # a header that costs memory is read where memory is bounded
        config, *sizes = confined_answer(look_elsewhere, str(path.absolute()), f"the model in {path}", _LIMITS)
    return ModelFolder(path, config, *sizes)


def look_elsewhere(path: str) -> Iterator[object]:
    """A look of any size, for the confined child."""
    gc.disable()  # of a million small lists and objects that all stay, it would take most of the time
    yield _look(Path(path), _LIMITS.memory_bytes)


def _look(path: Path, most_bytes: int) -> tuple[dict[str, object], int, int]:
    """Config, bytes of the weights, and parameters. Raises BadInput, or _LargeLook before more than that is parsed."""
    look = _Look(path, most_bytes)
    config = look.config()
    if not config.get("model_type"):
        raise BadInput(f"{path}/config.json names no model_type: it is not a transformers model")
    _refuse_code(look, config)
    refuse_other_work(config, f"{path}/config.json")
    if ON_TOP in look.names:
        raise BadInput(
            f"{path} holds {ON_TOP}: that adapter would be loaded on top of the base; remove it, or merge it first"
        )
    weight_bytes, parameters = look.weights()
    if not any(name in look.names for name in _TOKENIZER_FILES):
        raise BadInput(f"{path} has no tokenizer (tokenizer.json); copy it from the model's origin")
    if not look.has_chat_template():
        raise BadInput(f"{path} has no chat template (chat_template.jinja); take the model's instruct version")
    return config, weight_bytes, parameters


class _Look:
    """One look at a folder: what it holds, and how much of it may still be parsed."""

    def __init__(self, path: Path, most_bytes: int) -> None:
        self.path, self.names, self._left = path, names_in(path), most_bytes
        wanted_files(path)  # that each is a file, and no link that leaves

    def config(self) -> dict[str, object]:
        """Its config.json, of a size and depth that a record can keep."""
        if "config.json" not in self.names:
            raise self._no_model()
        config = self.json("config.json", CONFIG_BYTES)
        if not config:
            raise BadInput(f"{self.path}/config.json is no JSON object that says anything")
        refuse_unrecordable(config, f"{self.path}/config.json")
        return config

    def json(self, name: str, most_bytes: int = _MAX_JSON_BYTES) -> dict[str, object]:
        """An object; an empty one for a list, which is another kind of file. Raises BadInput, _LargeLook."""
        with open_inside(self.path, name) as file:
            if os.fstat(file.fileno()).st_size <= most_bytes:
                self._take(os.fstat(file.fileno()).st_size)
            data = file.read(most_bytes + 1)
        try:
            if len(data) > most_bytes:
                raise ValueError(f"no file of at most {most_bytes >> 20} MiB")
            value = parse_json(data)
        except ValueError as error:
            raise BadInput(f"{self.path / name} is not readable JSON: {error}") from None
        return value if isinstance(value, dict) else {}

    def weights(self) -> tuple[int, int]:
        """Bytes and parameters of the weights, by their headers."""
        wanted = wanted_names(self.names)
        files = [name for name in wanted if name.endswith(".safetensors")]
        if not files:
            raise self._no_weights()
        if INDEX_NAME in self.names:
            shards = indexed_shards(self.json(INDEX_NAME), self.path / INDEX_NAME)
            if missing := sorted(shards - set(self.names)):
                raise BadInput(
                    f"{self.path} lacks {missing[0]} ({len(missing)} of {len(shards)} shards); copy it again"
                )
            files = sorted(shards) if INDEX_NAME in wanted else files
        elif files != [SINGLE_NAME]:
            raise BadInput(unnamed_weights(str(self.path), files[0]))
        weight_bytes = parameters = 0
        for name in files:
            with open_inside(self.path, name) as file:
                self._take(header_bytes(file, self.path / name))
                file.seek(0)
                places = places_in(file, self.path / name)
                weight_bytes += os.fstat(file.fileno()).st_size
            parameters += sum(math.prod(place.spec.shape) for place in places.values())
        return weight_bytes, parameters

    def _no_model(self) -> BadInput:
        """Of a folder without a config."""
        if ON_TOP in self.names:
            return BadInput(f"{self.path} holds an adapter and no model: merge it into its base, and give that folder")
        if gguf := self._first(("*.gguf",)):
            return BadInput(f"{self.path} {_ONLY_GGUF.format(gguf)}")
        inside = sorted(
            file.parent for place in ("*", "snapshots/*") for file in self.path.glob(f"{place}/config.json")
        )
        instead = f"; give the folder of one model, such as {inside[0]}" if inside else ""
        return BadInput(f"{self.path} is not a model folder: it has no config.json{instead}")

    def _no_weights(self) -> BadInput:
        if pickle := self._first(PICKLES):
            return BadInput(
                f"{self.path} has its weights only as a pickle ({pickle}), which can run code; "
                "take or convert to safetensors"
            )
        if gguf := self._first(("*.gguf",)):
            return BadInput(f"{self.path} {_ONLY_GGUF.format(gguf)}")
        return BadInput(f"{self.path} has no *.safetensors weights")

    def _first(self, patterns: Iterable[str]) -> str:
        """The first name of such a kind; empty for none."""
        return next((name for name in self.names if any(fnmatchcase(name, pattern) for pattern in patterns)), "")

    def has_chat_template(self) -> bool:
        """Whether it says how a conversation is written, wherever it does."""
        if "chat_template.jinja" in self.names or "chat_template.json" in self.names:
            return True
        name = "tokenizer_config.json"
        return name in self.names and bool(self.json(name).get("chat_template"))

    def _take(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise _LargeLook


def read_config(folder: Path) -> dict[str, object]:
    """The config.json of a folder of which nothing else was looked at. Raises BadInput."""
    return _Look(folder, IN_PLACE_BYTES).config()


def fingerprint(path: Path) -> str:
    """Digest of what a model folder holds, in well under a second, for a plan to be bound to.

    Small files and the headers of weights go in by their bytes, the weights themselves by inode, size and the times
    that change with any write to them; hashing them all takes minutes, and is what the work itself does. What is no
    file, and a link that leaves the folder, is left out: nothing is taken of it.
    """
    digest = hashlib.sha256()
    for name in names_in(path):
        try:
            file = open_inside(path, name)
        except BadInput:  # the plan refuses the folder for it, and says why
            continue
        with file:
            head, stat = file.read(_WHOLE_BYTES), os.fstat(file.fileno())
        large = [stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns] if stat.st_size > _WHOLE_BYTES else []
        digest.update(json.dumps([name, stat.st_size, *large, hashlib.sha256(head).hexdigest()]).encode())
    return digest.hexdigest()


def sealed_as(path: Path) -> str:
    """The digest in a model folder's manifest, which holds wherever it lies; empty where it was never sealed."""
    manifest = read_manifest(path)
    return manifest["sha256"] if manifest else ""


def folder_pins(name: str, fingerprint: str, sealed: str) -> dict[str, str]:
    """What a plan pins of a folder, for `Job.agreed_folder` to hold it against."""
    return {pin: digest for pin, digest in ((name, fingerprint), (f"{name}, sealed", sealed)) if digest}


def check_hub_revision(revision: str | None, model_id: str) -> str:
    """`revision` when it is a full commit hash; raises BadInput otherwise, because a branch moves."""
    if revision is None or not _COMMIT.fullmatch(revision):
        raise BadInput(
            f"{model_id}: revision {revision!r} is not a commit; give the 40 hex digits shown on its hub page"
        )
    return revision


def may_name_code(name: str) -> bool:
    """Whether a file of this name is one that can carry an `auto_map`: any JSON but the vocabularies and the index."""
    return name.endswith(".json") and name not in ("tokenizer.json", "vocab.json", INDEX_NAME)


def refuse_unrecordable(config: object, name: str) -> None:
    """Raise BadInput for a config that the record of a model could not keep."""
    if depth_of(config, _CONFIG_DEPTH) > _CONFIG_DEPTH:
        raise BadInput(f"{name} is nested more than {_CONFIG_DEPTH} deep; it is no model's config")
    try:
        json.dumps(config, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise BadInput(f"{name} holds half of a surrogate pair, which is no text; take another version") from None


def unnamed_weights(model: str, name: str) -> str:
    """Why weights are not taken that nothing says to load."""
    instead = f"name it {SINGLE_NAME}, or save the model with save_pretrained"
    return f"{model} has weights ({name}), but no {SINGLE_NAME} and no {INDEX_NAME}, and no other is loaded; {instead}"


def refuse_other_work(config: Mapping[str, object], name: str) -> None:
    """Raise BadInput for a model that does not go on with a text, as an encoder or a classifier, and for sizes that no
    model has."""
    classes = config.get("architectures")
    named = str(classes[0])[:100] if isinstance(classes, list) and classes else ""
    if config.get("is_encoder_decoder") is True or _NO_WRITER.fullmatch(named):
        what = named or "an encoder with a decoder"
        raise BadInput(f"{name} says {what}, which does not go on with a text; take a decoder-only chat model")
    try:
        ModelShape.of(config)
    except BadInput as error:
        raise BadInput(f"{name}: {error}; take another version") from None
    except (KeyError, TypeError, ValueError):
        pass  # the plan says that nobody knows its sizes


def has_auto_map(document: object) -> bool:
    """Whether a JSON document names code, at any depth, that would be loaded with the model."""
    return _has_key(document, "auto_map")


def _refuse_code(look: _Look, config: dict[str, object]) -> None:
    # Every JSON file: processors and nested configs can carry auto_map as well.
    for name in look.names:
        if may_name_code(name) and has_auto_map(config if name == "config.json" else look.json(name)):
            raise BadInput(
                f"{look.path / name} has an auto_map: loading it would run code from the model; take a version "
                "without it"
            )


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
