"""Local paths in requests, made absolute where a request is parsed: its worker and its repetition start elsewhere.

Short names, of what comes with tunesmith, stay as they are. What is relative stands in the folder of the plan file that
says it, or in the present folder where it was typed; a stored request is read without any folder, and changes in
nothing.
"""

from __future__ import annotations

from collections.abc import Collection
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith.memory.errors import BadInput, NotFound

if TYPE_CHECKING:
    from pydantic import AfterValidator, ValidationInfo

FOLDER = "folder"
"""Key of the validation context that names the folder which relative paths start from."""

NO_PLACE = "names no place"
"""Marks a text in a request that no file, folder or hub is looked at for: words, or a name of the records. Of any other
text another agent's person is asked first."""

BUNDLED_BEHAVIOUR = "demo"
"""Short name of the behaviour that comes with tunesmith, and of its suites; it lies in a folder like any other."""


def bundled_behaviour() -> Path:
    """That folder."""
    return Path(str(files("tunesmith.prompts"))) / BUNDLED_BEHAVIOUR


def local_path(*short_names: str, maybe: bool = False) -> AfterValidator:
    """A field that names a file or folder; with `maybe` one that may as well name something else, such as a hub id."""
    from pydantic import AfterValidator  # confined children read paths, and start a third sooner without it

    def check(value: str, info: ValidationInfo) -> str:
        folder = (info.context or {}).get(FOLDER)
        return value if folder is None else _absolute(value, Path(folder), short_names, maybe)

    return AfterValidator(check)


def _absolute(value: str, folder: Path, short_names: Collection[str], maybe: bool) -> str:
    if not value or value in short_names:
        return value
    try:
        path = folder / Path(value).expanduser()
    except RuntimeError:
        raise ValueError(_nobody(value)) from None
    if maybe and not (looks_like_path(value) or is_there(path)):
        return value
    return str(path)  # a ".." stays in it, for the folder before it may be a link


def expanded(name: str) -> Path:
    """The path of a name that may begin with `~`. Raises BadInput where there is no such user."""
    try:
        return Path(name).expanduser()
    except RuntimeError:
        raise BadInput(_nobody(name)) from None


def _nobody(name: str) -> str:
    user = name.partition("/")[0][:100]  # a name may be any text; an error is one sentence
    return f"no user of this machine is called {user[1:]!r}, so {user} is no folder; write ./{user} for a name"


def existing_path(name: str, remedy: str) -> Path:
    """The path of a file or folder that a user names. Raises NotFound with the remedy where nothing is there."""
    path = expanded(name)
    if not is_there(path):
        raise NotFound(f"{name} is not there; {remedy}")
    return path


def is_there(path: str | Path) -> bool:
    """Whether a file or folder of this name exists; a name that none can have is no error."""
    try:
        return Path(path).exists()
    except (OSError, ValueError):  # too long, or with a NUL in it
        return False


def is_folder(path: str | Path) -> bool:
    """Whether a folder of this name exists; a name that none can have is no error."""
    try:
        return Path(path).is_dir()
    except (OSError, ValueError):  # too long, or with a NUL in it
        return False


def looks_like_path(value: str) -> bool:
    """Whether a text can be nothing but a path, whatever lies there."""
    return value.startswith((".", "/", "~"))
