"""How people speak of the bundled behaviour. What it is about is data: `prompts/demo/wishes.yaml`."""

from __future__ import annotations

import re
from difflib import get_close_matches
from functools import cache
from importlib.resources import files

import yaml
from pydantic import BaseModel, ConfigDict


class Wishes(BaseModel):
    """The words; `about`, `does` and `other` are regular expressions."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    title: str
    noun: str
    about: str
    does: str
    other: str

    def hold(self, words: str) -> bool:
        """Whether what is to be learned is the bundled behaviour: its subject, and no other thing done with it."""
        nearly = any(get_close_matches(word, [f"{self.noun}s"], 1, 0.8) for word in words.split())
        about = nearly or re.search(self.about, words, re.IGNORECASE)
        does, other = (re.search(pattern, words, re.IGNORECASE) for pattern in (self.does, self.other))
        return bool(about and (does or not other))


@cache
def wishes() -> Wishes:
    """The bundled behaviour's words."""
    return Wishes.model_validate(yaml.safe_load((files("tunesmith.prompts") / "demo" / "wishes.yaml").read_text()))
