"""Checkpoints that are whole or not there: written aside, sealed, renamed; the newest whole one is gone on from."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from tunesmith.memory.errors import StepFailed
from tunesmith.memory.files import read_manifest, seal, sync_folder, verify

_NEWEST = 2
"""One to go on from, and one before it: the newest may turn out damaged or unusable."""
_ASIDE = ".writing"


def keep_checkpoint(root: Path, step: int, fingerprint: str, write: Callable[[Path], Path], *, best: int = 0) -> Path:
    """Publish what `write(folder)` makes (it returns the folder it filled) as the checkpoint of `step` below `root`.

    The two newest stay, and that of step `best`.
    """
    aside = root / _ASIDE
    shutil.rmtree(aside, ignore_errors=True)  # of a step that was killed as it wrote
    aside.mkdir(parents=True)
    filled = write(aside)
    seal(filled, step=step, fingerprint=fingerprint)
    target = root / f"checkpoint-{step}"
    shutil.rmtree(target, ignore_errors=True)  # one of other settings, or a damaged one: the name is taken anew
    filled.rename(target)
    sync_folder(root)
    shutil.rmtree(aside, ignore_errors=True)
    for old in _by_step(root)[:-_NEWEST]:
        if old.name != f"checkpoint-{best}":
            shutil.rmtree(old)
    return target


def newest_checkpoint(root: Path, fingerprint: str, usable: Callable[[Path], bool] = Path.is_dir) -> Path | None:
    """The newest checkpoint below `root` that is whole, usable, and of the same settings, rows and base."""
    return next(whole_checkpoints(root, fingerprint, usable), None)


def whole_checkpoints(root: Path, fingerprint: str, usable: Callable[[Path], bool] = Path.is_dir) -> Iterator[Path]:
    """Those that `newest_checkpoint` is chosen from, the newest first."""
    for folder in reversed(_by_step(root)):
        manifest = read_manifest(folder)
        if manifest is None or manifest.get("fingerprint") != fingerprint:
            continue
        try:
            verify(folder)
        except StepFailed:  # cut off in writing: an earlier one is whole
            continue
        if usable(folder):
            yield folder


def kept_steps(root: Path) -> list[int]:
    """The steps whose checkpoints below `root` were written to their end, the newest last; they are not verified."""
    return [step_of(folder) for folder in _by_step(root) if read_manifest(folder) is not None]


def step_of(checkpoint: Path) -> int:
    """The optimiser step that a checkpoint was written after."""
    return int(checkpoint.name.removeprefix("checkpoint-"))


def _by_step(root: Path) -> list[Path]:
    folders = [path for path in root.glob("checkpoint-*") if path.name.removeprefix("checkpoint-").isdigit()]
    return sorted(folders, key=step_of)
