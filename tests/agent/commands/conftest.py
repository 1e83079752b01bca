"""A home of its own, whose run has a base, an adapter of it and a quantized model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.askable import STUB, Home, add_run
from tunesmith.memory.store import Store
from tunesmith.tools.pipeline.workspace import Workspace
from tunesmith.tools.serving import servers


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    monkeypatch.setenv("STUB_REQUESTS", str(tmp_path / "requests"))
    events: list[tuple[str, dict[str, Any]]] = []
    store = Store(tmp_path / "home")
    ws = Workspace(store, str(STUB), lambda event, **data: events.append((event, data)))
    run, made = add_run(store)
    yield Home(ws, run, made, events)
    servers.stop_all(tmp_path / "home")
    store.close()
