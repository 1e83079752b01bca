"""The files of a model that are taken, by an explicit list, and how a file of a stranger's folder is opened.

A link may name a file beside it, or, in a snapshot of the hub's cache, a blob of the same repository. Every other link
leaves the folder: a copy of it could publish what its user never meant to.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import BinaryIO

from tunesmith.memory.errors import BadInput, StepFailed
from tunesmith.tools.models.tensor_file import INDEX_NAME, SHARD, SINGLE_NAME

CARD = "README.md"
LICENSES = (
    "LICENSE", "LICENSE.txt", "LICENSE.md", "LICENSE-MODEL", "LICENSE-CODE", "NOTICE", "NOTICE.txt", "NOTICE.md",
    "USE_POLICY.md",
)  # fmt: skip
TEXTS = frozenset({*LICENSES, CARD})
"""For people to read: taken only as plain text."""
TEXT_BYTES = 1 << 20  # people read them; a longer one is something else
_TOKENIZER = re.compile(r"tokenizer\.model(\.v\d{1,2})?", re.ASCII)
_NAMES = TEXTS | {
    INDEX_NAME, "config.json", "generation_config.json", "quantize_config.json", "quant_config.json",
    "hf_quant_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "vocab.txt", "merges.txt", "tekken.json", "chat_template.jinja", "chat_template.json",
    "preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json",
}  # fmt: skip
_MOST_FILES = 10_000
"""A model has a few hundred at most: more is a folder that was named by mistake."""
_CHUNK_BYTES = 1 << 20  # hashed and copied in pieces: a file of weights has gigabytes
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK  # non-blocking: a named pipe is refused, not waited for
_FOLDER = os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY
_BLOB = re.compile(r"\.\./\.\./blobs/([0-9a-f]{40}|[0-9a-f]{64})", re.ASCII)
_SHARED_BLOB = re.compile(r"\.\./\.\./blobs/([0-9a-f]{2})/([0-9a-f]{64})", re.ASCII)


def is_wanted(name: str) -> bool:
    """Whether a file of this name is one that is fetched or copied of a model."""
    return name in _NAMES or bool(SHARD.fullmatch(name) or _TOKENIZER.fullmatch(name))


def wanted_names(names: Iterable[str]) -> list[str]:
    """Of the names in a folder or repository those that are taken; of weights that lie there twice those that
    transformers loads: `model.safetensors`, else the shards without their maker's own layout beside them."""
    wanted = [name for name in names if is_wanted(name)]
    weights = {name for name in wanted if name.endswith(".safetensors")}
    if SINGLE_NAME in weights:
        unused = weights - {SINGLE_NAME} | {INDEX_NAME}
    else:
        makers = {name for name in weights if fnmatchcase(name, "consolidated*")}
        unused = makers if weights - makers else set()
    return [name for name in wanted if name not in unused]


def names_in(folder: Path) -> list[str]:
    """The sorted names of what lies in a folder. Raises BadInput where they are too many for a model's."""
    names = []
    with os.scandir(folder) as entries:
        for entry in entries:
            names.append(entry.name)
            if len(names) > _MOST_FILES:
                raise BadInput(f"{folder} holds more than {_MOST_FILES:,} files; give the folder of one model")
    return sorted(names)


def wanted_files(folder: Path) -> dict[str, int]:
    """Name → bytes of what is taken of a folder, in name order. Raises BadInput for a wanted name that is no file, or a
    link that leaves."""
    sizes = {}
    for name in filter(is_wanted, names_in(folder)):
        with open_inside(folder, name) as file:
            sizes[name] = os.fstat(file.fileno()).st_size
    return {name: sizes[name] for name in wanted_names(sizes)}


def weight_bytes(folder: Path) -> int:
    """Of the weights alone."""
    return sum(size for name, size in wanted_files(folder).items() if name.endswith(".safetensors"))


def open_inside(folder: Path, name: str) -> BinaryIO:
    """Open the regular file of a folder for reading, through no link that leaves it. Raises BadInput.

    What is read is what was looked at: the name is resolved once, and each of its links is followed here.
    """
    here = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fd = _opened(here, name, folder)
    except OSError as error:
        raise BadInput(f"{folder / name} cannot be read ({error.strerror}); check the name and the rights") from None
    finally:
        os.close(here)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise BadInput(f"{folder / name} is not a regular file; put a copy of the file there, or remove it")
    return os.fdopen(fd, "rb")


def _opened(here: int, name: str, folder: Path) -> int:
    try:
        return os.open(name, _FLAGS, dir_fd=here)
    except OSError as error:
        if error.errno != errno.ELOOP:  # which O_NOFOLLOW says of a link
            raise
    target = os.readlink(name, dir_fd=here)
    if "/" not in target:
        return _unlinked(here, target, folder / name)
    if (blob := _BLOB.fullmatch(target)) and folder.resolve().parent.name == "snapshots":
        return _blob(here, blob[1], folder / name)
    raise _leaves(folder / name, target)


def _blob(here: int, name: str, link: Path) -> int:
    """A blob of the snapshot's own repository; since 2026 one may be a link to the store that a cache's repositories
    share, by its content's hash."""
    blobs = os.open("../../blobs", _FOLDER, dir_fd=here)
    try:
        try:
            return os.open(name, _FLAGS, dir_fd=blobs)
        except OSError as error:  # ELOOP: a link, which O_NOFOLLOW refuses
            if error.errno != errno.ELOOP:
                raise
        target = os.readlink(name, dir_fd=blobs)
        if not (shared := _SHARED_BLOB.fullmatch(target)):
            raise _leaves(link, target)
        store = os.open("../../blobs", _FOLDER, dir_fd=blobs)  # a link to the store that all models of the cache share
        try:
            part = os.open(shared[1], _FOLDER, dir_fd=store)
        finally:
            os.close(store)
        try:
            return _unlinked(part, shared[2], link)
        finally:
            os.close(part)
    finally:
        os.close(blobs)


def _unlinked(where: int, name: str, link: Path) -> int:
    try:
        return os.open(name, _FLAGS, dir_fd=where)
    except OSError as error:  # ELOOP: a link, which O_NOFOLLOW refuses
        if error.errno != errno.ELOOP:
            raise
        raise _leaves(link, name) from None


def _leaves(link: Path, target: str) -> BadInput:
    return BadInput(
        f"{link} is a link that leaves its folder, to {target[:200]!r}; if that file belongs to the model, put a copy "
        "of it in the link's place, else remove the link"
    )


def copy_inside(folder: Path, name: str, target: Path) -> str:
    """Copy a file of a folder to the new file `target`, and return its sha256. Raises BadInput, StepFailed.

    A hard link would share later edits of the source with the copy.
    """
    digest, left = hashlib.sha256(), 0
    with open_inside(folder, name) as source, target.open("xb") as out:
        left = os.fstat(source.fileno()).st_size
        while chunk := source.read(min(_CHUNK_BYTES, left)):
            left -= len(chunk)
            digest.update(chunk)
            out.write(chunk)
        if left or source.read(1):
            raise StepFailed(f"{folder / name} was changed while it was copied; start again")
    target.chmod(0o644)  # a cache's blobs are often read-only, and this is a file of its own
    return digest.hexdigest()


def copy_beside_weights(base: Path, target: Path) -> None:
    """Copy what a model made from `base` takes of it: all but the weights and the card. Raises BadInput, StepFailed.

    By the list again: a copy that an earlier version made may hold more.
    """
    for name in wanted_files(base):
        if not name.endswith(".safetensors") and name != CARD:
            (target / name).unlink(missing_ok=True)  # `copy_inside` makes new files alone
            copy_inside(base, name, target / name)


def sha256_inside(folder: Path, name: str) -> str:
    """Hex sha256 of a file of a folder. Raises BadInput."""
    with open_inside(folder, name) as file:
        digest = hashlib.sha256()
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def is_plain_text(path: Path) -> bool:
    """Whether a file is UTF-8 text of at most a megabyte, without control characters."""
    with path.open("rb") as file:
        data = file.read(TEXT_BYTES + 1)
    try:
        return len(data) <= TEXT_BYTES and not re.search(r"[\x00-\x08\x0e-\x1f\x7f-\x9f]", data.decode())
    except UnicodeDecodeError:  # of another encoding, or no text at all
        return False


def drop_odd_texts(folder: Path) -> list[str]:
    """Remove the licences, notices and cards of a copy that are no plain text, and return their names."""
    odd = [name for name in sorted(TEXTS) if (folder / name).is_file() and not is_plain_text(folder / name)]
    for name in odd:
        (folder / name).unlink()
    return odd


def digest_of(hashes: Mapping[str, str]) -> str:
    """Twelve hex digits of a model's files, by the sha256 of each, for the name of its copy."""
    lines = "".join(f"{name} {sha256}\n" for name, sha256 in sorted(hashes.items()))
    return hashlib.sha256(lines.encode()).hexdigest()[:12]
