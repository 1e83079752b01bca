"""A home of its own for every test, with tunesmith in it as a real process or on a real terminal."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.agent.terminal import COMMAND, Terminal, Tunesmith


@pytest.fixture
def tunesmith(tmp_path: Path) -> Tunesmith:
    """Commands in a fresh home."""
    return Tunesmith(tmp_path / "home")


@pytest.fixture
def terminal(tunesmith: Tunesmith) -> Iterator[Callable[..., Terminal]]:
    """Opens tunesmith on a terminal in the same home."""
    opened: list[Terminal] = []

    def open_(*args: str) -> Terminal:
        opened.append(Terminal([*COMMAND, *args], tunesmith.env))
        return opened[-1]

    yield open_
    for one in opened:
        one.close()


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    """A folder that a base can be copied from: right in form, of a few bytes."""
    return _model_folder(tmp_path / "tiny-model", 4)


@pytest.fixture
def slow_model_folder(tmp_path: Path) -> Path:
    """The same, of a size that takes a second or more to copy and to hash."""
    return _model_folder(tmp_path / "big-model", 100_000_000)


def _model_folder(folder: Path, floats: int) -> Path:
    folder.mkdir()
    header = json.dumps({"w": {"dtype": "F32", "shape": [floats], "data_offsets": [0, 4 * floats]}}).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + 4 * floats)
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text("{}")
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    return folder
