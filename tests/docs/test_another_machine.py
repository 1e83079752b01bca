"""The page about another machine: its settings are ones, its plan is one, and the stages that it names are those."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from tunesmith.agent.commands.settings import SettingsFile
from tunesmith.memory.errors import BadInput
from tunesmith.tools.pipeline import catalog
from tunesmith.tools.pipeline.plan_file import load_pipeline, parse_request, placed

PAGE = (Path(__file__).parents[2] / "docs" / "another-machine.md").read_text()


def test_its_settings_and_its_plan_are_read(tmp_path: Path) -> None:
    [settings], [plan] = (re.findall(rf"```{kind}\n(.+?)```", PAGE, re.DOTALL) for kind in ("toml", "yaml"))
    assert SettingsFile.model_validate(tomllib.loads(settings)).ray.head().place == "127.0.0.1:8265"
    (tmp_path / "plan.yaml").write_text(plan)
    steps = {spec.stage: spec.fields.get("on") for spec in load_pipeline(tmp_path / "plan.yaml").steps}
    assert steps == {"base": None, "baseline": "ray", "generate": "ray", "critique": "here", "train": "ray"}
    for on in ("ray", "here"):
        moved = {s.stage: s.fields.get("on") for s in placed(load_pipeline(tmp_path / "plan.yaml"), on).steps}
        assert moved == {"base": None, **dict.fromkeys(("baseline", "generate", "critique", "train"), on)}


def test_the_stages_that_it_names_are_those_that_can_go() -> None:
    [parts] = re.findall(r"\n(`generate`.+?) can go;(.+?)\.", PAGE, re.DOTALL)
    go, stay = (re.findall(r"`(\w+)`", part) for part in parts)
    fields = {entry.name: "on" in entry.load().request.model_fields for entry in catalog.STAGES}
    assert fields == {**dict.fromkeys(go, True), **dict.fromkeys(stay, False)}
    for stage in stay:
        with pytest.raises(BadInput, match=f"{stage}: .*no field 'on' here: .* can go (.+)") as told:
            parse_request(stage, {"on": "ray"})
        assert set(re.findall(r"\w+", str(told.value).rpartition(" can go ")[2])) - {"and"} == set(go)
