"""What settings.toml may say about the judge; apart from `judging`, since every start of tunesmith reads it."""

from __future__ import annotations

from pydantic import BaseModel


class JudgeSettings(BaseModel, frozen=True, extra="forbid"):
    """`[judge]` in HOME/settings.toml."""

    model: str = "bundled-driver"
    """'bundled-driver' or a folder of safetensors; tunesmith serves it."""
    endpoint: str = ""
    """An OpenAI-compatible endpoint to use instead, such as http://127.0.0.1:8000/v1. Answers are sent there."""
    name: str = ""
    """The model to ask that endpoint for."""
    key_file: str = ""
    """File that holds the endpoint's key and that only you can read, absolute or relative to HOME."""
    allow_plain_http: bool = False
    """Whether the key may go to an endpoint on another machine over plain http, where everybody on the way reads it."""
