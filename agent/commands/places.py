"""What another agent names, as far as tunesmith would look at something for it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tunesmith.memory.errors import TunesmithError
from tunesmith.tools.models.bundled import BUNDLED
from tunesmith.tools.models.model_names import named_model


def is_known(model: str) -> bool:
    """Whether a name means a model whose shape stands in our own tables."""
    try:
        known = named_model(BUNDLED[model].title if model in BUNDLED else model)
    except TunesmithError:
        return False
    return known is not None and not known.approximate


def places(values: Sequence[object]) -> list[str]:
    """What among fields may be a file, a folder or a name on the hub."""
    inner = [value for one in values for value in (one if isinstance(one, list) else [one])]
    return [one for one in inner if isinstance(one, str) and ("/" in one or Path(one).exists())]
