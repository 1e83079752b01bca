"""The driver's chat template has to show that it costs little before a server loads it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fixtures import FIXTURES
from tests.fixtures.tiny_model import make_tiny_model
from tunesmith.agent.commands.settings import DriverSettings, Settings
from tunesmith.agent.driver.endpoint import Driver
from tunesmith.memory.errors import BadInput
from tunesmith.tools.serving import servers

LOOPS = "{% for a in range(99999) %}{% for b in range(99999) %}x{% endfor %}{% endfor %}"


def test_a_driver_whose_template_takes_too_much_is_not_served(tmp_path: Path) -> None:
    folder, home = make_tiny_model(tmp_path / "driver"), tmp_path / "home"
    (folder / "chat_template.jinja").write_text(LOOPS)
    driver = Driver(Settings(home=home, vllm=str(FIXTURES / "stub_vllm.py"), driver=DriverSettings(model=str(folder))))
    with pytest.raises(BadInput, match=f"{folder}: its chat template writes over 200,000 characters"):
        driver.ensure()
    assert servers.list_servers(home) == []
    driver.close()
