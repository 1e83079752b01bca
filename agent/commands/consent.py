"""The words of a yes and of a no, in several languages, for answers to a price."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from functools import cache
from importlib.resources import files

from tunesmith.tools.core.yaml_file import read_own


def folded(text: str) -> str:
    """Small letters without accents."""
    plain = unicodedata.normalize("NFD", text.casefold())
    return "".join(letter for letter in plain if unicodedata.category(letter) != "Mn")


@cache
def sayings(*kinds: str) -> frozenset[tuple[str, ...]]:
    """Every saying of these kinds, each in its words."""
    return frozenset(tuple(name.split()) for kind in kinds for name in _page()[kind].split(","))


@cache
def _page() -> Mapping[str, str]:
    return read_own(files("tunesmith.agent.commands") / "consent.yaml")  # type: ignore[no-any-return]  # ours, of tables
