"""What the hub says about a model before it is downloaded: its files, their sizes, and whether code would come along.

Files below the top folder are left out: nothing here loads them. huggingface_hub is loaded only when it is asked
something.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, urlsplit

from tunesmith.memory.errors import BadInput, StepFailed
from tunesmith.memory.json_values import as_list, as_object
from tunesmith.tools.core.strict_json import parse_json
from tunesmith.tools.models.folder import (
    CONFIG_BYTES,
    ON_TOP,
    PICKLES,
    has_auto_map,
    may_name_code,
    refuse_other_work,
    refuse_unrecordable,
    unnamed_weights,
)
from tunesmith.tools.models.hub_client import errors_named, file_path, read_body, within
from tunesmith.tools.models.model_files import TEXT_BYTES, TEXTS, is_wanted, wanted_names
from tunesmith.tools.models.tensor_file import INDEX_NAME, SINGLE_NAME, indexed_shards

_INSPECTED_S = 30.0
"""Redirects and slow pages of one look, all together; a person waits for it."""
_LISTING_BYTES = 4 << 20
"""Some ten thousand files; parsed here, it takes a second and 200 MB at the very worst."""
_MOST_BYTES = 1 << 50
"""More is no model's file: sizes are added up and compared with a disk."""
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
"""owner/name"""
_HUB_HOSTS = ("huggingface.co", "www.huggingface.co", "hf.co")
_SHA256, _SHA1 = re.compile(r"[0-9a-f]{64}"), re.compile(r"[0-9a-f]{40}")


class HubFile(NamedTuple):
    """What the hub announces of a file; what is downloaded is held against it."""

    name: str
    bytes: int
    sha256: str
    """Of a large file; empty for one that is kept in git itself."""
    blob: str
    """Of such a one: git's own hash of it."""


@dataclass(frozen=True, slots=True)
class HubModel:
    """The files of a model at one commit that would be downloaded."""

    files: Mapping[str, HubFile]
    config: Mapping[str, object] = field(default_factory=dict)
    """Its config.json; empty where it has none."""

    @property
    def bytes(self) -> int:
        """What the download comes to."""
        return sum(file.bytes for file in self.files.values())


def inspect_hub(model: str, revision: str) -> HubModel:
    """Read the list of files and the small JSON files of a model at a commit, in a few seconds.

    Raises BadInput for what must not or cannot be loaded (`auto_map`, pickles only) and for what the hub does not have
    or does not give; StepFailed where the hub cannot be reached.
    """
    return within(_INSPECTED_S, lambda: _inspected(model, revision), f"what {model} holds")


def _inspected(model: str, revision: str) -> HubModel:
    listing = hub_listing(model, revision)
    if listing.get("sha") != revision:
        raise BadInput(f"the hub was asked for {model} at {revision[:12]} and told of another commit; do not use it")
    wanted = announced(listing, model, lambda name: "/" not in name and is_wanted(name))
    files = {file.name: file for file in wanted if file.name not in TEXTS or file.bytes <= TEXT_BYTES}
    names = {str(entry.get("rfilename")) for entry in map(as_object, as_list(listing.get("siblings") or []))}
    if ON_TOP in names:
        raise BadInput(f"{model} holds {ON_TOP}: it is an adapter, or would load one; take the model that it is for")
    if not any(name.endswith(".safetensors") for name in files):
        pickles = sorted(name for name in names if any(fnmatchcase(name, pattern) for pattern in PICKLES))
        if pickles:
            raise BadInput(
                f"{model} has its weights only as a pickle ({pickles[0]}), which can run code; "
                "take a version with safetensors"
            )
        raise BadInput(f"{model} has no *.safetensors weights at {revision[:12]}")
    config: Mapping[str, object] = {}
    for name, file in files.items():
        if may_name_code(name) and file.bytes <= CONFIG_BYTES:
            document = _small_json(model, revision, name)
            _refuse_code(model, name, document)
            config = document if name == "config.json" else config
    if INDEX_NAME in files:
        if files[INDEX_NAME].bytes <= CONFIG_BYTES:
            _refuse_index(model, _small_json(model, revision, INDEX_NAME), files)
    elif SINGLE_NAME not in files:
        raise BadInput(unnamed_weights(model, next(name for name in files if name.endswith(".safetensors"))))
    refuse_other_work(config, f"config.json of {model}")
    return HubModel({name: files[name] for name in wanted_names(files)}, config)


def hub_listing(name: str, revision: str, kind: str = "models") -> dict[str, object]:
    """What the hub's interface says of a model, or of one of the `datasets`, with sizes and hashes at a commit."""
    at = f"/revision/{quote(revision, safe='')}?blobs=true" if revision else ""
    return _document(name, revision, f"/api/{kind}/{name}{at}", "the hub's list of the files", _LISTING_BYTES)


def _document(page: str, revision: str, path: str, what: str, most_bytes: int) -> dict[str, object]:
    from huggingface_hub.utils import validate_repo_id

    with errors_named(page, revision):
        validate_repo_id(page)
        data = read_body(path, f"{what} of {page}", most_bytes)
    try:
        document = parse_json(data)
    except ValueError as error:
        raise BadInput(f"{what} of {page} is no JSON: {str(error)[:100]}; check HF_ENDPOINT, or take another") from None
    return document if isinstance(document, dict) else {}


def announced(listing: Mapping[str, object], name: str, is_meant: Callable[[str], bool]) -> list[HubFile]:
    """The files of a listing whose names are meant. Raises BadInput where one comes without a size or a hash."""
    files = []
    for entry in map(as_object, as_list(listing.get("siblings") or [])):
        path, size, large = str(entry.get("rfilename")), entry.get("size"), as_object(entry.get("lfs") or {})
        if not is_meant(path):
            continue
        # Of a large file (LFS) the hub says a sha256, of a small one git's own SHA-1.
        sha256, blob = str(large.get("sha256") or ""), "" if large else str(entry.get("blobId") or "")
        hashed = _SHA256.fullmatch(sha256) or _SHA1.fullmatch(blob)
        if not (isinstance(size, int) and 0 <= size < _MOST_BYTES and hashed):
            raise BadInput(f"the hub gives no size or no hash of {path[:200]} in {name}; check HF_ENDPOINT")
        files.append(HubFile(path, size, sha256, blob))
    return files


def hub_config(model: str, revision: str) -> dict[str, object]:
    """The config.json of a model at a commit, nothing else of it. Raises as `inspect_hub` does."""
    return within(_INSPECTED_S, lambda: _small_json(model, revision, "config.json"), f"the config of {model}")


def _refuse_code(model: str, name: str, document: object) -> None:
    if has_auto_map(document):
        raise BadInput(
            f"{name} of {model} has an auto_map: loading it would run code from the model; take a version without it"
        )


def _refuse_index(model: str, document: object, files: Mapping[str, HubFile]) -> None:
    shards = indexed_shards(document, Path(model) / INDEX_NAME)
    if missing := sorted(shards - files.keys()):
        raise BadInput(f"{model} lacks {missing[0]} ({len(missing)} of {len(shards)} shards); take another version")


def _small_json(model: str, revision: str, name: str) -> dict[str, object]:
    fields = _document(model, revision, file_path(model, revision, name), name, CONFIG_BYTES)
    if name == "config.json":
        refuse_unrecordable(fields, f"config.json of {model}")
    return fields


def newest_commit(name: str, revision: str = "", kind: str = "models") -> str:
    """The commit that a model, or one of the `datasets`, has on the hub now, or at a branch or a tag: 40 hex digits.

    Raises BadInput, saying what to type, where the hub has none, cannot be reached, or names no commit.
    """
    try:
        listing = within(_INSPECTED_S, lambda: hub_listing(name, revision, kind), f"the newest commit of {name}")
    except StepFailed as error:
        how = "--revision, the 40 hex digits of a commit on its hub page" if kind == "models" else f"{name}@COMMIT"
        raise BadInput(f"{error}; or give {how}") from None
    commit = listing.get("sha")
    if not is_commit(commit):
        raise BadInput(f"the hub names no commit of {name}; give one as revision=COMMIT")
    return str(commit)


def of_link(link: str) -> tuple[str, str]:
    """The model, and the revision if it names one, that a link to the hub's pages means; empty for any other text."""
    try:
        parts = urlsplit(link)
    except ValueError:  # of brackets
        return "", ""
    if parts.scheme not in ("https", "http") or parts.hostname not in _HUB_HOSTS:
        return "", ""
    owner, name, kind, revision, *_ = [*parts.path.strip("/").split("/"), "", "", "", ""]
    if owner in ("datasets", "spaces") or not HUB_ID.fullmatch(f"{owner}/{name}"):
        return "", ""
    return f"{owner}/{name}", revision if kind in ("tree", "blob", "resolve", "commit") else ""


def is_commit(revision: object) -> bool:
    """Whether a revision is a whole commit, which no branch or tag moves."""
    return isinstance(revision, str) and _SHA1.fullmatch(revision) is not None
