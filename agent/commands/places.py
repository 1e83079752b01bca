"""What another agent names, as far as tunesmith would look at something for it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tunesmith.memory.errors import TunesmithError
from tunesmith.tools.core.local_paths import expanded, looks_like_path
from tunesmith.tools.models.bundled import BUNDLED
from tunesmith.tools.models.hub import HUB_ID
from tunesmith.tools.models.model_names import named_model


def is_known(model: str) -> bool:
    """Whether our own tables answer what a name of a model means: nothing here is read and no hub asked for it."""
    if not model.strip() or model in BUNDLED:
        return True
    try:
        if looks_like_path(model) or expanded(model).exists():
            return False
        known = named_model(model)
    except (TunesmithError, OSError, ValueError):  # of several sizes, or a name that no folder can have
        known = None
    return not HUB_ID.fullmatch(model) or (known is not None and not known.approximate)


def places(values: Sequence[object]) -> list[str]:
    """What among fields may be a file, a folder or a name on the hub."""
    inner = [value for one in values for value in (one if isinstance(one, list) else [one])]
    return [one for one in inner if isinstance(one, str) and ("/" in one or Path(one).exists())]
