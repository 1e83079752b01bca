"""A data set of the hub, at a commit: its files are listed for the price, and fetched as files, never as code.

Named as `hub:owner/name@COMMIT`, or `hub:owner/name/folder@COMMIT` for one folder of it. What is fetched is what was
listed: by name, size and digest, over https; a server on this machine may be asked without (`HF_ENDPOINT`).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from tunesmith.memory.errors import BadInput, StepFailed
from tunesmith.tools.data.import_reading import MAX_SOURCE_BYTES, is_rows_file
from tunesmith.tools.models.hub import hub_listing, is_commit, newest_commit
from tunesmith.tools.models.hub_client import answer, errors_named

PREFIX = "hub:"
_NAMED = re.compile(r"hub:([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(/[^@\s]+)?(?:@(.*))?")
_COMMIT, _SHA256 = re.compile(r"[0-9a-f]{40}"), re.compile(r"[0-9a-f]{64}")
_SPLITS = ("train", "test", "valid", "validation", "val", "dev", "eval")
_TIMEOUT_S, _MAX_FILES = 30.0, 1_000
"""Without a byte, after which a fetch ends; files of one set, as of a folder (`import_reading`)."""


class HubSource(NamedTuple):
    """Where on the hub rows come from."""

    name: str
    """owner/name"""
    folder: str
    """Of the repository; empty: all of it."""
    commit: str

    def __str__(self) -> str:
        return f"{self.name}{f'/{self.folder}' if self.folder else ''} at {self.commit[:12]}"


class HubFile(NamedTuple):
    """A file as the hub lists it."""

    name: str
    bytes: int
    sha256: str = ""
    """Of a large file."""
    blob: str = ""
    """Git's own digest, of a small one."""


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
    if not _COMMIT.fullmatch(commit):
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
    listed = [_file(entry) for entry in listing.get("siblings") or () if is_rows_file(str(entry.get("rfilename")))]
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
    if size > MAX_SOURCE_BYTES or len(files) > _MAX_FILES:
        raise BadInput(
            f"{source} has {len(files):,} files of {size / 1e9:,.0f} GB; at most {_MAX_FILES:,} of "
            f"{MAX_SOURCE_BYTES / 1e9:,.0f} GB are fetched: name a folder of it"
        )
    return files


def _file(entry: Mapping[str, Any]) -> HubFile:
    name, size, large = str(entry["rfilename"]), entry.get("size"), entry.get("lfs") or {}
    sha256, blob = str(large.get("sha256") or ""), "" if large else str(entry.get("blobId") or "")
    if not isinstance(size, int) or size < 0 or not (_SHA256.fullmatch(sha256) or _COMMIT.fullmatch(blob)):
        raise BadInput(f"the hub gives no size or no hash of {name[:200]}; fetch it yourself and import that")
    return HubFile(name, size, sha256, blob)


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


def fetch(
    source: HubSource, files: Sequence[HubFile], folder: Path, progress: Callable[[int], None]
) -> tuple[Path, ...]:
    """Fetch listed files into a folder, one after another; a whole one of an earlier attempt stays.

    Names are ours but for the ending. Raises StepFailed where more or something else arrives than was listed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    fetched, before = [], 0
    for number, file in enumerate(files, 1):
        target = folder / f"{number:04d}{PurePosixPath(file.name).suffix.lower()}"
        if not target.exists():
            part = target.with_name(f"{target.name}.part")
            with errors_named(f"datasets/{source.name}", source.commit), part.open("wb") as output:
                _write(source, file, output.write, before, progress)
            part.replace(target)
        before += file.bytes
        fetched.append(target)
    return tuple(fetched)


def _write(
    source: HubSource, file: HubFile, write: Callable[[bytes], object], before: int, progress: Callable[[int], None]
) -> None:
    """Write one file as it arrives, held against the size and the hash that the hub listed."""
    sha256, blob = hashlib.sha256(), hashlib.sha1(f"blob {file.bytes}\0".encode(), usedforsecurity=False)
    done = 0
    with closing(_stream(source, file.name)) as chunks:
        for chunk in chunks:
            done += len(chunk)
            if done > file.bytes:
                break
            for take in (write, sha256.update, blob.update):
                take(chunk)
            progress(before + done)
    if done != file.bytes:
        raise StepFailed(f"{file.name} of {source} is not the {file.bytes:,} bytes that the hub lists; try again later")
    if (file.sha256 and sha256.hexdigest() != file.sha256) or (file.blob and blob.hexdigest() != file.blob):
        raise StepFailed(f"{file.name} of {source} arrived as something else than the hub listed; try again later")


def _stream(source: HubSource, name: str) -> Generator[bytes, None, None]:
    from huggingface_hub import hf_hub_url

    url = hf_hub_url(source.name, name, repo_type="dataset", revision=source.commit)
    with answer(url, f"{name} of {source}", read_s=_TIMEOUT_S) as response:
        yield from response.iter_raw(1 << 20)
