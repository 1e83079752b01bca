"""Reading a YAML file that a user wrote, other than a suite: those have a reader of their own, with bounds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from tunesmith.memory.errors import BadInput


def read_yaml(path: Path, what: str) -> Any:
    """The document in a file; `what` names it in an error. Raises BadInput."""
    try:
        return yaml.safe_load(path.read_text())
    except OSError as error:
        raise BadInput(f"cannot read the {what} {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise BadInput(f"{path} is not a YAML file: {' '.join(str(error).split())[:200]}") from None
