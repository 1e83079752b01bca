"""Files that survive a crash: atomic writes, and folders whose manifest proves them whole.

A folder is an artifact only once `manifest.json` stands in it; `seal` writes that last, so a half-written
folder can never be taken for a whole one. Not covered: other programs that write into a sealed folder
(`verify` finds out) and filesystems whose rename is not atomic.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import TypedDict

from tunesmith.memory.errors import StepFailed

MANIFEST = "manifest.json"
_CHUNK_BYTES = 1 << 20
"""Read and hashed in pieces: weights are never in memory whole."""


def atomic_write(path: Path, content: bytes | str, *, mode: int = 0o644, new: bool = False) -> None:
    """Write `content` to `path` so that a reader sees the old file or the new one, never a part.

    Temp file in the same folder, fsync, rename, fsync of the folder: the last is what makes the new name
    itself survive a power cut. With `new` a file that is there already stays as it is: raises FileExistsError.
    """
    data = content.encode() if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    fd, temp = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), mode)  # mkstemp lets nobody else read it
            # Or a power cut leaves the new name without the bytes.
            os.fsync(file.fileno())
        if new:
            _place_new(Path(temp), path)
        else:
            Path(temp).replace(path)
    except BaseException:  # a Ctrl-C, too
        Path(temp).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def append(path: Path, lines: Iterable[str]) -> None:
    """Add lines to a file of its user alone, on disk when this returns.

    A newline comes before each: what a kill or a full disk cut off spoils no line that is added later.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write("".join(f"\n{line}" for line in lines).encode())
    _sync(path)
    sync_folder(path.parent)


def _place_new(temp: Path, path: Path) -> None:
    """Give a written file a name that nothing has. Raises FileExistsError."""
    try:
        path.hardlink_to(temp)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links, such as a USB stick's
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))  # as a temporary file is made, too
        temp.replace(path)
    else:
        temp.unlink()


def sync_folder(path: Path) -> None:
    """Flush a folder's own entries, so that a rename inside it survives a power cut."""
    _sync(path)


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)  # a folder opens no other way, and for fsync it is enough
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _sync_all(folder: Path) -> None:
    """Flush every file and every folder below `folder`, and itself: the bytes, and the names that lead to them."""
    for path in (*folder.rglob("*"), folder):
        if path.is_file() or path.is_dir():
            _sync(path)


def sha256_file(path: Path) -> str:
    """Hex sha256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _files_below(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path != folder / MANIFEST:
            yield path


class FileEntry(TypedDict):
    """What a manifest says of one file."""

    sha256: str
    bytes: int


class Manifest(TypedDict):
    """What a sealed folder is: `sha256`, of the sorted file list, is the identity of the whole. The notes of whoever
    sealed it stand beside these keys."""

    files: dict[str, FileEntry]
    sha256: str
    bytes: int


def seal(folder: Path, **notes: object) -> Manifest:
    """Sync and hash every file below `folder`, then write its manifest, and return that manifest."""
    _sync_all(folder)
    files: dict[str, FileEntry] = {}
    for path in _files_below(folder):
        files[path.relative_to(folder).as_posix()] = {
            "sha256": sha256_file(path),
            "bytes": path.stat().st_size,
        }
    size = sum(entry["bytes"] for entry in files.values())
    manifest = Manifest(sha256=_folder_digest(files), bytes=size, files=files)
    atomic_write(folder / MANIFEST, json.dumps({**manifest, **notes}, indent=1, sort_keys=True))
    sync_folder(folder.parent)
    return manifest


def _folder_digest(files: Mapping[str, FileEntry]) -> str:
    lines = "".join(f"{entry['sha256']}  {name}\n" for name, entry in sorted(files.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a sealed folder, or None where the folder is not whole: it names files of its own alone."""
    try:
        manifest: Manifest = json.loads((folder / MANIFEST).read_bytes())
    except (OSError, ValueError, RecursionError):  # not sealed, or cut off
        return None
    return manifest if _is_manifest(manifest) else None


def _is_manifest(value: object) -> bool:
    """Whether a document is what `seal` writes: sizes and digests of files that lie in the folder itself."""
    if not isinstance(value, dict) or not _is_entry(value) or not isinstance(files := value.get("files"), dict):
        return False
    inside = (not PurePosixPath(name).is_absolute() and ".." not in PurePosixPath(name).parts for name in files)
    return all(inside) and all(map(_is_entry, files.values()))


def _is_entry(value: object) -> bool:
    return isinstance(value, dict) and isinstance(value.get("sha256"), str) and type(value.get("bytes")) is int


def verify(folder: Path, sha256: str | None = None, *, sha256_of: Callable[[Path], str] = sha256_file) -> Manifest:
    """Re-hash a sealed folder and return its manifest; every byte, unless `sha256_of` knows a file's digest already.

    Raises StepFailed where it was never sealed, a file changed, is missing or was added, or where the whole
    is not the one with the digest `sha256`.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        raise StepFailed(
            f"{folder} has no whole manifest: it was never finished, or was changed; run the step that makes it again"
        )
    present = {path.relative_to(folder).as_posix() for path in _files_below(folder)}
    recorded = manifest["files"]
    if present != set(recorded):
        odd = sorted(present ^ set(recorded))
        raise StepFailed(f"{folder} changed since it was sealed: {odd[0]} was added or is missing; make it again")
    for name, entry in recorded.items():
        path = folder / name
        if path.stat().st_size != entry["bytes"] or sha256_of(path) != entry["sha256"]:
            raise StepFailed(f"{path} changed since it was sealed (its sha256 differs); make it again")
    if manifest["sha256"] != _folder_digest(recorded) or (sha256 and manifest["sha256"] != sha256):
        raise StepFailed(f"{folder} is not the artifact that was recorded; make it again")
    return manifest


def write_protect(folder: Path) -> None:
    """Take the write bits off `folder` and everything below it: a base model is read, never written or added to."""
    for path in (*folder.rglob("*"), folder):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode & ~0o222)


def set_aside(folder: Path) -> Path:
    """Rename a damaged folder to NAME.damaged-TIME beside it, and return where it is now; nothing of it is removed."""
    name = f"{folder.name}.damaged-{time.strftime('%Y%m%d-%H%M%S')}"
    for number in itertools.count(1):
        aside = folder.with_name(name if number == 1 else f"{name}-{number}")
        if not aside.exists():
            break
    folder.rename(aside)
    sync_folder(folder.parent)
    return aside


def publish_folder(target: Path, fill: Callable[[Path], None], **notes: object) -> Manifest:
    """Make the sealed folder `target` by calling `fill(temporary folder)`; whole or absent, never between.

    A sealed `target` that already stands is kept and its manifest returned. What a killed attempt left is removed;
    the caller sees to it that no two processes make the same folder at once.
    """
    if (manifest := read_manifest(target)) is not None:
        return manifest
    target.parent.mkdir(parents=True, exist_ok=True)
    # A killed attempt's: no two make the same folder at once.
    for abandoned in target.parent.glob(f".{target.name}.*"):
        shutil.rmtree(abandoned, ignore_errors=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        fill(partial)
        manifest = seal(partial, **notes)
        if target.exists():
            shutil.rmtree(target)
        partial.chmod(0o755)  # mkdtemp lets nobody else in; who may is up to the folders above
        partial.rename(target)
    except BaseException:  # a Ctrl-C, too
        shutil.rmtree(partial, ignore_errors=True)
        raise
    sync_folder(target.parent)
    return manifest


def new_folder(parent: Path, name: str, fill: Callable[[Path], None]) -> Path:
    """Make a folder below `parent` by calling `fill(temporary folder)`, and return it; whole or absent, never between.

    It takes `name`, or the first of `name-2`, `name-3`, … that is free; what stands there is never replaced, whoever
    else writes at the same time. It has no manifest: its owner may edit it.
    """
    parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=parent))
    try:
        fill(partial)
        _sync_all(partial)
        # 0755, as above: mkdtemp lets nobody else in.
        partial.chmod(0o755)
        for number in itertools.count(1):
            target = parent / (name if number == 1 else f"{name}-{number}")
            try:
                partial.rename(target)  # over an empty folder it may go, over anything else it fails
                break
            except OSError as error:  # it has those names on one system or another
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                    raise
    except BaseException:  # a Ctrl-C, too
        shutil.rmtree(partial, ignore_errors=True)
        raise
    sync_folder(parent)
    return target
