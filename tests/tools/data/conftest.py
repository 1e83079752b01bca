"""What the tests of steps by a stub of a server share."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tunesmith.tools.serving import servers


@pytest.fixture
def stub_home(based: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home with a base; a stub of a server refuses from the 1,000th request on, or where `answers` says."""
    home = Path(shutil.copytree(based / "home", tmp_path / "home"))
    (tmp_path / "answers").write_text("1000")
    monkeypatch.setenv("STUB_REQUESTS", str(tmp_path / "requests"))
    monkeypatch.setenv("STUB_ANSWERS", str(tmp_path / "answers"))
    yield home
    servers.stop_all(home)
