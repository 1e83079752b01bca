"""What all tests share: one finished arc on the real model, made once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fixtures.demo_run import Demo, tunesmith


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """A finished fast demo in a home of its own; whatever it serves is stopped at the end."""
    home = tmp_path_factory.mktemp("home")
    try:
        yield Demo(home)
    finally:
        tunesmith(home, "serve", "stop")
