"""Files of a model or a data set fetched from the hub, several at once, each held against its announced size and hash.

A file that the hub's own cache on this machine holds is copied from there, if it has that hash. What stops coming is
given up, and what breaks off is gone on with where it broke.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from threading import Event, Thread
from typing import BinaryIO

from tunesmith.memory.errors import BadInput, StepFailed
from tunesmith.tools.models.hub import HubFile
from tunesmith.tools.models.hub_client import answer, errors_named, file_path
from tunesmith.tools.models.model_files import open_inside

Progress = Callable[[float, float, str], None]

_AT_ONCE = 8
"""As many as huggingface_hub takes: one connection seldom fills a line."""
_ATTEMPTS = 5
"""Of a file: connections of hours break off, and what has come is kept."""
_READ_S = 20.0
"""Silence of one connection; it is begun again, so it may be shorter than what ends the download."""
STALLED_S = 60.0
"""So long all files together may bring fewer than `_LEAST_BYTES`."""
_LEAST_BYTES = 1 << 16  # a connection that trickles is dead for files of gigabytes
_ENDS_S = 2.0  # for the threads to see that one failed; one that waits for the hub is left behind
_TICK_S = 0.2  # between two looks at the threads: a Ctrl-C and a progress bar wait no longer
_PAUSE_S = 1.0
"""Before a connection is tried again: the other end may be starting anew."""
_CHUNK_BYTES = 1 << 20
"""Hashed and written as it comes: a file is never in memory whole."""


class _Download:
    """What several threads do together; `error` is the first that one of them met."""

    def __init__(self, name: str, revision: str, files: Mapping[Path, HubFile], kind: str) -> None:
        self.name, self.revision, self.repo_type = name, revision, kind.removesuffix("s")
        self.bytes, self.stopped, self.fetched = 0, Event(), list[Path]()
        self.error: BaseException | None = None
        self._todo = sorted(files.items(), key=lambda item: item[1].bytes)
        self._page = name if kind == "models" else f"{kind}/{name}"

    def work(self) -> None:
        """Fetch files, the longest first, until there are none."""
        while not self.stopped.is_set():
            try:
                target, file = self._todo.pop()
            except IndexError:  # another thread took the last
                return
            try:
                self._fetch(file, target)
                self.fetched.append(target)
            except Exception as error:  # of a thread: who waits for them raises it, and the others stop
                self.error = self.error or error
                self.stopped.set()

    def _fetch(self, file: HubFile, target: Path) -> None:
        if target.exists():
            self.bytes += file.bytes
            return
        part = target.with_name(f"{target.name}.part")
        with errors_named(self._page, self.revision), part.open("wb") as out:
            if not self._from_cache(file, out):
                self._from_hub(file, out)
        part.chmod(0o644)  # who may read it is up to the folders above
        part.replace(target)

    def _from_cache(self, file: HubFile, out: BinaryIO) -> bool:
        """Whether the hub's cache of this machine had it, and it is what was announced."""
        from huggingface_hub import try_to_load_from_cache

        cached_path = try_to_load_from_cache(self.name, file.name, revision=self.revision, repo_type=self.repo_type)
        if not isinstance(cached_path, str):
            return False
        digest = _Digest(file)
        try:
            with open_inside(Path(cached_path).parent, Path(cached_path).name) as cached:
                while (chunk := cached.read(_CHUNK_BYTES)) and digest.add(chunk):
                    self._write(out, chunk)
        except BadInput:  # a link that leaves the cache: fetched as if it were not there
            pass
        if digest.is_right:
            return True
        out.seek(0)
        out.truncate()
        return False

    def _from_hub(self, file: HubFile, out: BinaryIO) -> None:
        import httpx

        digest = _Digest(file)
        for attempt in range(_ATTEMPTS):
            try:
                for chunk in self._chunks(file.name, digest, out):
                    if not digest.add(chunk):
                        raise StepFailed(
                            f"the hub sends more of {file.name} of {self.name} than the {file.bytes:,} bytes that it "
                            "announced; do not use it"
                        )
                    self._write(out, chunk)
                break
            except httpx.TransportError:  # it goes on behind what has come
                if attempt == _ATTEMPTS - 1 or self.stopped.wait(_PAUSE_S):
                    raise
        if not digest.is_right:
            raise StepFailed(
                f"{file.name} of {self.name} came with other bytes than the hub announced ({digest.count:,} of "
                f"{file.bytes:,}, another hash); try again later, and do not use it if that stays so"
            )

    def _chunks(self, name: str, digest: _Digest, out: BinaryIO) -> Iterator[bytes]:
        """What is still to come of a file, or all of it again where the hub does not go on in the middle."""
        what, at = f"{name} of {self.name}", digest.count
        more = {"range": f"bytes={at}-"} if at else {}
        with answer(file_path(self._page, self.revision, name), what, read_s=_READ_S, more=more) as response:
            if response.headers.get("x-repo-commit", self.revision) != self.revision:
                raise StepFailed(f"the hub sent {what} of another commit than {self.revision[:12]}; do not use it")
            if at and not response.headers.get("content-range", "").startswith(f"bytes {at}-"):
                # The range was not honoured: this is the file from its first byte.
                digest.begin()
                out.seek(0)
                out.truncate()
            for chunk in response.iter_raw():
                if self.stopped.is_set():
                    raise StepFailed(f"{what} was given up")
                yield chunk

    def _write(self, out: BinaryIO, chunk: bytes) -> None:
        out.write(chunk)
        self.bytes += len(chunk)


class _Digest:
    """How much of a file came, and whether it is what was announced."""

    def __init__(self, file: HubFile) -> None:
        self._file = file
        self.begin()

    def begin(self) -> None:
        """Count from the first byte."""
        self.count = 0
        # For files outside of LFS the hub announces git's own id: SHA-1 of this header and the bytes.
        self._hash = hashlib.sha256() if self._file.sha256 else hashlib.sha1(f"blob {self._file.bytes}\0".encode())

    def add(self, chunk: bytes) -> bool:
        """Count some bytes; False, and nothing counted, where they are more than was announced."""
        if self.count + len(chunk) > self._file.bytes:
            return False
        self.count += len(chunk)
        self._hash.update(chunk)
        return True

    @property
    def is_right(self) -> bool:
        announced = self._file.sha256 or self._file.blob
        return self.count == self._file.bytes and self._hash.hexdigest() == announced


def download(
    name: str, revision: str, files: Mapping[Path, HubFile], progress: Progress, *, kind: str = "models"
) -> None:
    """Fetch files of a model, or of one of the `datasets`, at a commit, each to its path; one that is there stays.

    Raises StepFailed for what is not what was announced, and where nothing comes any more; BadInput for what the hub
    refuses. A file at its path is whole even then.
    """
    total = sum(file.bytes for file in files.values())
    doing = _Download(name, revision, files, kind)
    # Daemons: one that waits for a host that never answers must not hold the process at its end.
    threads = [Thread(target=doing.work, daemon=True) for _ in range(min(_AT_ONCE, len(files)))]
    for thread in threads:
        thread.start()
    heard, then = 0, time.monotonic()
    while any(thread.is_alive() for thread in threads) and not doing.stopped.wait(_TICK_S):
        progress(doing.bytes, max(total, 1), f"downloading {total / 1e9:.2f} GB of {name} at {revision[:12]}")
        if doing.bytes - heard >= _LEAST_BYTES:
            heard, then = doing.bytes, time.monotonic()
        elif time.monotonic() - then > STALLED_S:
            doing.stopped.set()
            doing.error = doing.error or StepFailed(
                f"the hub sent under {_LEAST_BYTES >> 10} kB of {name} in {STALLED_S:g} s; check the network, and "
                "try again later"
            )
    until = time.monotonic() + _ENDS_S
    for thread in threads:  # one that writes on would leave a file in a folder that is being removed
        thread.join(max(0.0, until - time.monotonic()))
    if doing.error is not None:
        raise doing.error
    if missing := sorted(files.keys() - set(doing.fetched)):
        raise StepFailed(f"{files[missing[0]].name} of {name} was not fetched; try again")
