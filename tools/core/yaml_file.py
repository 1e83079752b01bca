"""Reading a YAML file that a user wrote, other than a suite: with the bounds of a suite, and the same meaning."""

from __future__ import annotations

from pathlib import Path

from tunesmith.memory.errors import BadInput, NotFound
from tunesmith.tools.core.plain_file import read_plain_text
from tunesmith.tools.core.yaml_nodes import YamlRefused, parse_yaml

_MAX_BYTES = 2 << 20
_MAX_MESSAGE_CHARS = 200


def read_yaml(path: Path, what: str, *, through_link: bool = True) -> object:
    """The document in a file; `what` names it in an error. Raises BadInput."""
    try:
        text = read_plain_text(path, _MAX_BYTES, through_link=through_link)
    except NotFound:
        raise
    except BadInput as error:
        raise BadInput(f"cannot read the {what} {error}") from None
    try:
        return parse_yaml(text, str(path)).plain
    except YamlRefused as error:
        why = " ".join(str(error).split())[:_MAX_MESSAGE_CHARS]
        raise BadInput(f"{path}:{error.line}: is not a YAML file that can be read: {why}") from None
