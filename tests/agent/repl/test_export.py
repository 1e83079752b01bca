"""`/export`: a conversation in a file of its user's own, over nothing that was there."""

from __future__ import annotations

import stat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tunesmith.agent.repl import slash
from tunesmith.agent.repl.talk import Talk
from tunesmith.memory.errors import BadInput

TURNS = [SimpleNamespace(at=0.0, prompt="a secret", reply="kept")]


@pytest.fixture
def talk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Talk:
    monkeypatch.chdir(tmp_path)
    made: Any = object.__new__(Talk)
    stored = SimpleNamespace(load=lambda name, whole: SimpleNamespace(turns=TURNS))
    made.chat = lambda: SimpleNamespace(id="c1", conversations=stored)
    return made  # type: ignore[no-any-return]


def export(talk: Talk, words: str) -> str:
    said: list[str] = []
    screen: Any = SimpleNamespace(say=said.append, talk=talk)
    slash.export(screen, words)
    return said[0]


def test_a_conversation_is_written_for_its_user_alone_and_replaced_only_by_force(talk: Talk, tmp_path: Path) -> None:
    for words, name in (("", "tunesmith-c1.md"), ("'my talk.md'", "my talk.md")):
        assert export(talk, words) == f"written: {name}"
        assert "a secret" in (tmp_path / name).read_text() and stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    with pytest.raises(BadInput, match="is there already; --force"):
        export(talk, "'my talk.md'")
    assert export(talk, "--force 'my talk.md'") == "written: my talk.md"


@pytest.mark.parametrize("words", ["no/such/x.md", "..", "/proc/x", "a b", "~nosuchuser/x", "/dev/tty --force"])
def test_what_can_be_no_file_is_refused(talk: Talk, tmp_path: Path, words: str) -> None:
    with pytest.raises(BadInput):
        export(talk, words)
    assert list(tmp_path.iterdir()) == []
