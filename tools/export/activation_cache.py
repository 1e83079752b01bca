"""What the parts of a model hand on to each other while they are calibrated, kept on disk and read a batch at a time.

A part's outputs are a folder with one file a batch. It gets its name only when all of them are synced, so that whoever
goes on after a kill sees the outputs of a part whole or not at all.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith.memory.files import sync_folder

if TYPE_CHECKING:
    import torch

Values = Mapping[str, object]
"""Name in the traced model → a tensor, or what is made of tensors."""


class ActivationCache:
    """Outputs by part and batch; the batches themselves, a few token ids, stay in memory."""

    def __init__(
        self, folder: Path, batches: Sequence[Values], outputs: Sequence[Iterable[str]], inputs: Sequence[Iterable[str]]
    ) -> None:
        """`outputs` and `inputs` name, part by part, what each makes and what it needs."""
        self._folder, self._batches = folder, batches
        self._maker = {name: part for part, names in enumerate(outputs) for name in names}
        self._last_use = [
            max((user for user, needed in enumerate(inputs) if set(names) & set(needed)), default=-1)
            for names in map(tuple, outputs)
        ]
        folder.mkdir(parents=True, exist_ok=True)

    def reached(self) -> int:
        """The first part whose outputs are not here whole."""
        return max((int(path.name) + 1 for path in self._folder.iterdir() if path.name.isdigit()), default=0)

    def read(self, batch: int, names: Iterable[str], device: torch.device) -> dict[str, object]:
        """The named values of a batch."""
        import torch

        names = set(names)
        values = {name: value for name, value in self._batches[batch].items() if name in names}
        for part in sorted({self._maker[name] for name in names - values.keys()}):
            # no code of a pickle is run: only tensors were kept
            outputs: Values = torch.load(self._path(part, batch), map_location=device, weights_only=True)
            values |= {name: value for name, value in outputs.items() if name in names and self._maker[name] == part}
        return {name: value.to(device) if isinstance(value, torch.Tensor) else value for name, value in values.items()}

    def write(self, part: int, batch: int, values: Values) -> None:
        """Keep what a part made of a batch, synced."""
        import torch

        path = self._partial(part) / f"{batch:05}.pt"
        path.parent.mkdir(exist_ok=True)
        with path.open("wb") as file:
            torch.save(dict(values), file)
            file.flush()
            os.fsync(file.fileno())  # the folder's name says that it is whole, after a power cut too

    def keep(self, part: int, value: object) -> None:
        """Keep what a part leaves for the next one beside its outputs: tensors in lists; synced."""
        import torch

        with self._beside(self._partial(part)).open("wb") as file:
            torch.save(value, file)
            file.flush()
            os.fsync(file.fileno())  # as in `write`: a power cut must not leave half of it under its name

    def carried(self, part: int) -> object:
        """What a finished part left for the next one."""
        import torch

        value: object = torch.load(self._beside(self._path(part, 0).parent), weights_only=True)
        return value

    def _beside(self, folder: Path) -> Path:
        return folder / "beside.pt"

    def finish(self, part: int) -> None:
        """Give a part's outputs their name, and remove those that no later part needs."""
        sync_folder(self._partial(part))
        self._partial(part).rename(self._path(part, 0).parent)
        sync_folder(self._folder)
        for earlier in range(part + 1):
            # Most of these are gone since an earlier part: that is no error.
            if self._last_use[earlier] <= part and earlier < part:
                shutil.rmtree(self._path(earlier, 0).parent, ignore_errors=True)

    def _path(self, part: int, batch: int) -> Path:
        return self._folder / f"{part:05}" / f"{batch:05}.pt"

    def _partial(self, part: int) -> Path:
        return self._folder / f"{part:05}.partial"
