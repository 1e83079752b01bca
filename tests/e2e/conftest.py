"""What the tests of the whole arc share: one deployment of the bundled model on the real vLLM."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fixtures.open_gate import Served, deploy_adapter
from tunesmith.tools.serving import servers


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A deployed adapter, whatever any training learned; whoever measures its base in this home is served by it too."""
    folder = tmp_path_factory.mktemp("served")
    try:
        yield deploy_adapter(folder)
    finally:
        servers.stop_all(folder / "home")
