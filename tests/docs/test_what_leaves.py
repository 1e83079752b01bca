"""The page about what leaves this machine says what `tunesmith doctor` says, and its commands and settings work."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import pytest

from tests.fixtures import warm
from tunesmith.agent.commands.settings import Settings, SettingsFile
from tunesmith.agent.what_leaves import OFF, channels
from tunesmith.tools.machine.torch_env import NO_REPORTS
from tunesmith.tools.serving.spec import ServerSpec, environment

PAGE = (Path(__file__).parents[2] / "docs" / "what-leaves.md").read_text()
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if line.startswith("| ")]


def test_the_table_is_the_doctors() -> None:
    """Row by row; what is off there is never here."""
    found = channels(Settings(home=Path("/nowhere")))
    assert [row[0] for row in ROWS[1:]] == [one.what for one in found]
    for row, one in zip(ROWS[1:], found, strict=True):
        assert row[1].startswith("never") == (one.state == OFF or one.what == "teacher"), row[0]


def test_what_is_said_to_be_switched_off_is(tmp_path: Path) -> None:
    served = environment(ServerSpec(model_dir=str(tmp_path), served_name="m", device="cuda"), "vllm")
    named = set(re.findall(r"`([A-Z_]+=1)`", PAGE)) - {"HF_HUB_OFFLINE=1"}
    assert named == {"VLLM_NO_USAGE_STATS=1", "HF_HUB_DISABLE_TELEMETRY=1"}
    assert named <= {f"{name}={value}" for name, value in {**NO_REPORTS, **served}.items()}


def test_its_settings_are_ones() -> None:
    (text,) = re.findall(r"```toml\n(.+?)```", PAGE, re.DOTALL)
    judge = SettingsFile.model_validate(tomllib.loads(text)).judge
    assert judge.endpoint and judge.allow_plain_http


@pytest.mark.heavy
def test_its_commands_work(tmp_path: Path) -> None:
    commands = re.findall(r"^    tunesmith (.+)$", PAGE, re.MULTILINE)
    assert len(commands) == 2
    env = {"TUNESMITH_HOME": str(tmp_path / "home"), "PATH": "/usr/bin:/bin", "TUNESMITH_VLLM": "/nowhere/vllm"}
    for command in commands:
        done = warm.run(shlex.split(command), env)
        assert done.returncode == 0, done.stderr
        assert "tunesmith" in done.stdout or "event" in done.stdout
