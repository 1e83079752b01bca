"""YAML files other than suites: one that a user wrote is read with the bounds of a suite and the same meaning; one of
ours is written so that it is read back letter for letter."""

from __future__ import annotations

import re
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import yaml

from tunesmith.memory.errors import BadInput
from tunesmith.tools.core.plain_file import read_plain_text
from tunesmith.tools.core.yaml_nodes import YamlRefused, parse_yaml

_MAX_BYTES = 2 << 20
"""A behaviour of 200 examples has some 100 KB; the file may be a stranger's, and is in memory several times over."""
_MAX_MESSAGE_CHARS = 200
"""A parser quotes lines of the file; an error is one sentence."""
_LOADER: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_own(file: Traversable) -> Any:
    """The document in a file of this package, by libyaml where it is there: PyYAML's own reader takes ten times as
    long, 0.3 s for the glossary."""
    return yaml.load(file.read_text(encoding="utf-8"), _LOADER)


class BrokenYaml(BadInput):
    """A text that is no YAML, or no plain data."""


def read_yaml(path: Path, *, through_link: bool = True) -> object:
    """The document in a file. Raises BadInput, BrokenYaml."""
    text = read_plain_text(path, _MAX_BYTES, through_link=through_link)
    try:
        return parse_yaml(text, str(path)).plain
    except YamlRefused as error:
        why = " ".join(str(error).split())[:_MAX_MESSAGE_CHARS]
        raise BrokenYaml(f"{path} line {error.line}: {why}") from None


class _Dumper(yaml.SafeDumper):
    """Long texts as blocks, and every value written out: no anchors."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text and not re.search(r"[ \t]\n|^\s", text) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def dump_yaml(document: object) -> str:
    """Plain data as YAML, in its own order."""
    # Ours are read and edited in editors and terminals of that width; PyYAML's own 80 folds sentences.
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
