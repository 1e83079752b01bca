"""Rows of a data set of the hub: at a commit, what there is, and its files.

A source is `hub:owner/name@COMMIT`, with /folder behind the name for one folder of it. What is fetched is what was
listed: by name, size and digest, over https, as files and never as code; a server on this machine may be asked without
(`HF_ENDPOINT`).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from tunesmith.memory.errors import BadInput
from tunesmith.tools.imports.sources import MAX_FILES, MAX_SOURCE_BYTES, is_rows_file
from tunesmith.tools.models.hub import HubFile, announced, hub_listing, is_commit, newest_commit
from tunesmith.tools.models.hub_download import Progress, download

PREFIX = "hub:"
_NAMED = re.compile(r"hub:([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(/[^@\s]+)?(?:@(.*))?")
_SPLITS = ("train", "test", "valid", "validation", "val", "dev", "eval")


class HubSource(NamedTuple):
    """Where on the hub rows come from."""

    name: str
    """owner/name"""
    folder: str
    """Of the repository; empty: all of it."""
    commit: str

    def __str__(self) -> str:
        return f"{self.name}{f'/{self.folder}' if self.folder else ''} at {self.commit[:12]}"


def at_commit(source: str) -> str:
    """A source at the commit that its data set has now, where it names a branch, a tag, or nothing; any other as it is.

    Raises BadInput where the hub has no such data set, or cannot be asked.
    """
    named = _NAMED.fullmatch(source)
    if named is None or is_commit(named[3]):
        return source
    return f"{source.partition('@')[0]}@{newest_commit(named[1], named[3] or '', 'datasets')}"


def parse_source(source: str) -> HubSource:
    """The data set that a source names. Raises BadInput, saying what to type."""
    named = _NAMED.fullmatch(source)
    if named is None:
        raise BadInput(f"{source[:200]!r} names no data set; type {PREFIX}owner/name@COMMIT")
    name, folder, commit = named[1], (named[2] or "").strip("/"), named[3] or ""
    if not is_commit(commit):
        given = f"{commit[:60]!r} is no commit, and may be another one tomorrow" if commit else "the commit is missing"
        raise BadInput(
            f"{given}: type {source.partition('@')[0][:200]}@COMMIT, 40 hex digits; "
            f"`git ls-remote https://huggingface.co/datasets/{name} HEAD` prints the newest"
        )
    return HubSource(name, folder, commit)


def list_files(source: HubSource, split: str) -> tuple[HubFile, ...]:
    """The files of a split, with sizes and digests; nothing of them is fetched.

    Raises BadInput where there are none, or several sets of them to choose from; StepFailed where the hub cannot be
    reached.
    """
    listing = hub_listing(source.name, source.commit, "datasets")
    if listing.get("sha") != source.commit:
        raise BadInput(f"the hub was asked for {source} and told of another commit; do not use it")
    listed = announced(listing, source.name, is_rows_file)
    below = [file for file in listed if not source.folder or file.name.startswith(f"{source.folder}/")]
    files = _of_split(source, below, split)
    folders = sorted({str(PurePosixPath(file.name).parent) for file in files})
    kinds = sorted({PurePosixPath(file.name).suffix for file in files})
    if len(folders) > 1 or len(kinds) > 1:
        several = folders if len(folders) > 1 else kinds
        raise BadInput(
            f"{source} holds rows in {', '.join(several[:8])}; name one folder, {PREFIX}{source.name}/FOLDER@"
            f"{source.commit}, or fetch the files that you want and import those"
        )
    size = sum(file.bytes for file in files)
    if size > MAX_SOURCE_BYTES or len(files) > MAX_FILES:
        raise BadInput(
            f"{source} has {len(files):,} files of {size / 1e9:,.0f} GB; at most {MAX_FILES:,} of "
            f"{MAX_SOURCE_BYTES / 1e9:,.0f} GB are fetched: name a folder of it"
        )
    return files


def _of_split(source: HubSource, files: Sequence[HubFile], split: str) -> tuple[HubFile, ...]:
    """The files whose name says the split; all, where no name says any."""
    if not files:
        raise BadInput(f"{source} holds no file of rows; its page lists what there is: datasets/{source.name}")
    chosen = [file for file in files if _says(file.name, split)]
    if not chosen and any(_says(file.name, other) for file in files for other in _SPLITS):
        names = ", ".join(file.name for file in files[:6])
        raise BadInput(f"{source} has no split {split!r} among {names}; give `tunesmith import --split` another")
    return tuple(sorted(chosen or files))


def _says(name: str, split: str) -> bool:
    return bool(re.search(rf"(?<![a-z0-9]){re.escape(split.lower())}(?![a-z0-9])", name.lower()))


def listing_digest(files: Sequence[HubFile]) -> str:
    """What the hub lists, for a plan to pin."""
    return hashlib.sha256("\n".join(map(repr, files)).encode()).hexdigest()


def fetch(source: HubSource, files: Sequence[HubFile], folder: Path, progress: Progress) -> tuple[Path, ...]:
    """Fetch listed files into a folder, under names that are ours but for the ending; raises as `download` does."""
    folder.mkdir(parents=True, exist_ok=True)
    targets = {
        folder / f"{number:04d}{PurePosixPath(file.name).suffix.lower()}": file for number, file in enumerate(files, 1)
    }
    download(source.name, source.commit, targets, progress, kind="datasets")
    return tuple(targets)
