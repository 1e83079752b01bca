"""A model that the user names: on the hub, resolved to the commit that it has now; a folder; a bundled one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tunesmith.memory.errors import BadInput
from tunesmith.tools.models.hub import newest_commit

_HUB = re.compile(r"(?<![\w/.~-])([A-Za-z0-9][\w.-]*/[\w.-]*\w)(?![\w/])")
_PATH = re.compile(r"(?<!\S)((?:~|\.{1,2})?/[\w./~-]+)")
_COMMIT = re.compile(r"\b[0-9a-f]{40}\b")


@dataclass(frozen=True, slots=True)
class Named:
    """The fields that a model stands for in a `base` step, and how it is told."""

    fields: Mapping[str, object]
    told: str


def named_model(text: str) -> Named | None:
    """The model in some words; None where none is named. Raises BadInput or StepFailed where it cannot be had."""
    if path := _PATH.search(text):
        folder = Path(path[1].rstrip(".,;")).expanduser()
        if not (folder / "config.json").is_file():
            raise BadInput(f"{folder} is no model folder: it has no config.json; name the folder that holds it")
        return Named({"model": str(folder)}, f"model {folder}")
    if hub := _HUB.search(text):
        return at_commit(hub[1], next(iter(_COMMIT.findall(text)), ""))
    if re.search(r"\bbundled[- ]driver\b|\bqwen2\.5-coder-1\.5b\b|\bthe driver(?:'s)? model\b", text, re.IGNORECASE):
        return Named({"model": "bundled-driver"}, "model bundled-driver (Qwen2.5-Coder-1.5B-Instruct)")
    if re.search(r"\bbundled(?: model)?\b|\bsmollm2?(?:-135m)?\b", text, re.IGNORECASE):
        return Named({"model": "bundled"}, "model bundled (SmolLM2-135M-Instruct)")
    return None


def at_commit(model: str, revision: str) -> Named:
    """A hub model at a commit: the one that was said, else the newest. Raises BadInput, StepFailed."""
    commit = revision or newest_commit(model)
    return Named({"model": model, "revision": commit}, f"model {model} at commit {commit[:12]}")
