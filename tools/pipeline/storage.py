"""Files on a storage that two machines see, each under the sha256 of its bytes.

What is there already is not sent again, and what is read is hashed: a file that changed on its way is refused, and
removed, so that it is sent anew. The storage may be emptied whenever no step is on its way.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tunesmith.memory.errors import BadInput, StepFailed
from tunesmith.memory.files import sha256_file
from tunesmith.tools.core.disk import is_full

_BLOBS = "blobs"
_DOCUMENT_BYTES = 512 << 20
"""A document, which is read whole, is no longer: a record of a run has some MB; what is larger is not what we sent."""


class Storage:
    """A folder, or what an fsspec URL names."""

    def __init__(self, url: str) -> None:
        """Raises BadInput where it cannot be reached."""
        from fsspec.core import url_to_fs

        self.url = url
        try:
            self._files, root = url_to_fs(str(Path(url).expanduser()) if "://" not in url else url)
            self._root = f"{root.rstrip('/')}/{_BLOBS}"
            self._files.makedirs(self._root, exist_ok=True)
        # fsspec imports a package for each kind of address, and raises what that one raises.
        except (OSError, ValueError, ImportError) as error:
            raise BadInput(f"the storage {url} cannot be used: {error}") from None

    def has(self, sha256: str, size_bytes: int) -> bool:
        """Whether a file is there, whole by its size."""
        with self._reached():
            path = self._place(sha256)
            return bool(self._files.exists(path)) and self._files.size(path) == size_bytes

    def put(self, path: Path, sha256: str) -> bool:
        """Send a file, whose sha256 that is, unless it is there; whether it was sent."""
        if self.has(sha256, path.stat().st_size):
            return False
        with self._whole_or_absent(sha256) as partial:
            self._files.put_file(str(path), partial)
        return True

    def put_bytes(self, data: bytes) -> str:
        """Send a document unless it is there, and return its sha256."""
        sha256 = hashlib.sha256(data).hexdigest()
        if not self.has(sha256, len(data)):
            with self._whole_or_absent(sha256) as partial:
                self._files.pipe_file(partial, data)
        return sha256

    @contextmanager
    def _whole_or_absent(self, sha256: str) -> Iterator[str]:
        """A place to write to, which becomes the file's own once it is written. Raises StepFailed where it is full."""
        partial = f"{self._root}/.{sha256}.{uuid.uuid4().hex}"  # another home may send the same file now
        with self._reached():
            try:
                yield partial
                self._files.mv(partial, self._place(sha256))
            except BaseException as error:  # a stop too: half a file must not stay under any name
                with contextlib.suppress(OSError):
                    self._files.rm_file(partial)
                if is_full(error):
                    raise StepFailed(
                        f"the storage {self.url} is full; make room on it, and go on with the step"
                    ) from None
                raise

    def get_bytes(self, sha256: str) -> bytes:
        """A document. Raises StepFailed where it is not there, or not what was sent."""
        with self._reached():
            if (there := self._files.size(self._place(sha256)) or 0) > _DOCUMENT_BYTES:
                raise StepFailed(f"{sha256[:12]}… on the storage {self.url} has {there:,} bytes; a document has fewer")
            data: bytes = self._files.cat_file(self._place(sha256))
        self._hold(sha256, hashlib.sha256(data).hexdigest())
        return data

    def get(self, sha256: str, target: Path) -> None:
        """Fetch a file to `target`, whole or not at all. Raises StepFailed as `get_bytes`."""
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
        try:
            with self._reached():
                self._files.get_file(self._place(sha256), str(partial))
            self._hold(sha256, sha256_file(partial))
            with partial.open("rb") as file:
                os.fsync(file.fileno())  # a digest that holds only in memory would be believed after a power cut
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)

    def _hold(self, expected: str, actual: str) -> None:
        if actual == expected:
            return
        with contextlib.suppress(OSError):  # the other machine may have removed it just now
            self._files.rm_file(self._place(expected))
        raise StepFailed(
            f"a file on the storage {self.url} was changed on its way: its sha256 is {actual[:12]}, sent was "
            f"{expected[:12]}; it was removed, and going on with the step sends it again"
        )

    def _place(self, sha256: str) -> str:
        return f"{self._root}/{sha256}"

    @contextmanager
    def _reached(self) -> Iterator[None]:
        """Errors of a storage by its name; a full disk keeps its own sentence."""
        try:
            yield
        except FileNotFoundError as error:
            raise StepFailed(
                f"the storage {self.url} does not hold {Path(str(error)).name[:12]}…: both machines have to see the "
                "same one, and it may be emptied only while no step is on its way"
            ) from None
        except OSError as error:  # a full disk is told by whoever knows what is needed
            if is_full(error):
                raise
            raise StepFailed(f"the storage {self.url} cannot be used: {error}") from None
