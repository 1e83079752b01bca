"""An environment variable comes before the settings file, that before what lies around; a wrong one is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fixtures.tables import table
from tunesmith.agent.commands.settings import home_of, load
from tunesmith.memory.errors import BadInput


def program(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def test_home_is_the_named_folder_or_the_users_data_folder(tmp_path: Path) -> None:
    assert home_of({"TUNESMITH_HOME": str(tmp_path)}) == tmp_path
    assert home_of({"TUNESMITH_HOME": "~/x"}) == Path.home() / "x"
    assert home_of({}).name == "tunesmith"


def test_vllm_is_the_one_that_was_named_last_and_nearest(tmp_path: Path) -> None:
    by_env, by_file = program(tmp_path / "e" / "vllm"), program(tmp_path / "f" / "vllm")
    (tmp_path / "settings.toml").write_text('vllm = "f/vllm"\n')
    home = {"TUNESMITH_HOME": str(tmp_path)}
    assert load(home | {"TUNESMITH_VLLM": str(by_env)}).vllm == str(by_env)
    assert load(home).vllm == str(by_file)


def test_a_relative_vllm_starts_from_where_it_was_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, home = program(tmp_path / "here" / "bin" / "vllm"), tmp_path / "home"
    in_home = program(home / "bin" / "vllm")
    monkeypatch.chdir(tmp_path / "here")
    environ = {"TUNESMITH_HOME": str(home)}
    assert load(environ | {"TUNESMITH_VLLM": "./bin/vllm"}).vllm == str(here)
    (home / "settings.toml").write_text('vllm = "bin/vllm"\n')
    assert load(environ).vllm == str(in_home)


def test_a_named_vllm_that_is_not_there_is_not_replaced_by_another(tmp_path: Path) -> None:
    on_path = program(tmp_path / "bin" / "vllm")
    found = load({"TUNESMITH_HOME": str(tmp_path), "TUNESMITH_VLLM": "/gone/vllm", "PATH": str(on_path.parent)})
    assert found.vllm is None and "/gone/vllm" in found.vllm_from


@table(("text", "told"), [("vlm = 'x'", "did you mean 'vllm'"), ("vllm = ", "settings.toml"), ("vllm = 3", "vllm")])
def test_a_broken_settings_file_is_told(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "settings.toml").write_text(text)
    with pytest.raises(BadInput, match=told):
        load({"TUNESMITH_HOME": str(tmp_path)})
