"""`teach`: from what a user would say to a priced plan, with what was proposed told apart from what was said."""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.fixtures import FIXTURES, warm
from tests.fixtures.hub_stand_in import COMMIT, MODEL, hub_of
from tests.fixtures.scripted_reader import by_piece, served
from tests.fixtures.tables import table
from tests.fixtures.tiny_model import make_tiny_model
from tunesmith.agent.commands.output import Output
from tunesmith.agent.commands.settings import DriverSettings, Settings
from tunesmith.agent.commands.teach import read_spec, why_none_is_started
from tunesmith.memory.store import Store
from tunesmith.tools.data.behaviour import described_in, words_in
from tunesmith.tools.data.description import EXAMPLES_MIN
from tunesmith.tools.data.proposal import STATED
from tunesmith.tools.data.spec import Spec
from tunesmith.tools.data.verify import spec_faults, verified
from tunesmith.tools.pipeline.workspace import Workspace
from tunesmith.tools.serving import servers

pytestmark = pytest.mark.heavy

SAID: dict[str, Any] = {
    "say": "Turn my notes about plants into the plant and how much water it gets.",
    "what": "one line: PLANT gets LITRES. LITRES is a number with one decimal, or - where none is said.",
    "fields": {"PLANT": "the plant in the note", "LITRES": "how much, or a dash"},
    "examples": [
        {"prompt": "the fern needs 2.5 litres", "answer": "fern gets 2.5"},
        {"prompt": "Give 1.0 to the ivy, please.", "answer": "ivy gets 1.0"},
        {"prompt": "water the palm", "answer": "palm gets -"},
    ],
}


def said(folder: Path, **changes: object) -> Path:
    path = folder / "description.yaml"
    document = {name: value for name, value in {**SAID, **changes}.items() if value is not None}
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return path


READ: dict[str, object] = {
    "applies": "kind",
    "language": "English",
    "demand": by_piece(line="exactly 1 lines"),
    "template": {"template": "{PLANT} gets {LITRES}"},
    "near-misses": {"items": ["What does a fern cost?"]},
    "kind": lambda question: "no",
}


def teach(home: Path, *args: object, **more: str) -> subprocess.CompletedProcess[str]:
    env = {"TUNESMITH_HOME": str(home), "TUNESMITH_VLLM": str(FIXTURES / "stub_chat.py"), **more}
    return warm.run(["teach", *map(str, args)], os.environ | env, cwd=home.parent)


def test_what_a_user_would_say_becomes_a_priced_plan_and_nothing_is_started(tmp_path: Path) -> None:
    done = teach(tmp_path / "home", said(tmp_path), "--pace", "fast", "--plan-only", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert set(told["proposed"]) == {"when", "never", "answer", "rules", "criteria", "near_misses"}
    assert told["spec"]["when"] == SAID["say"], "of what nobody said, the wish stands for it"
    names = {a["name"]: a for a in told["spec"]["attributes"]}
    assert names["LITRES"]["absent_as"] == "-" and told["spec"]["answer"]["template"] == "{PLANT} gets {LITRES}"
    assert told["estimated_seconds"] > 60 and len(told["prices"]) == len(told["plan"]["steps"])
    suites = {path.name for path in (Path(told["folder"]) / "suites").iterdir()}
    assert suites == {"target.yaml", "over-trigger.yaml", "adversarial.yaml"}, "near misses are guarded from the start"
    assert Store(tmp_path / "home").runs() == []


def test_a_model_that_answers_reads_the_words_once_and_the_folder_keeps_what_it_read(tmp_path: Path) -> None:
    home, file = tmp_path / "home", said(tmp_path, fields=None)
    with served(READ) as (url, reader):
        env = {"TUNESMITH_DRIVER": url, "TUNESMITH_DRIVER_NAME": "reader"}
        done = teach(home, file, "--plan-only", "--json", **env)
        assert done.returncode == 0 and "reader reads your words" in done.stderr, done.stderr
        first, asked = json.loads(done.stdout), len(reader.asked)
        assert first["read_by"] == "reader" and first["spec"]["answer"]["template"] == "{PLANT} gets {LITRES}"
        assert [rule["says"] for rule in first["spec"]["rules"]][-1] == "exactly 1 line"
        assert "near misses: the model cannot tell your examples from ordinary messages" in first["left_out"]
        edited = Path(first["folder"]) / "behaviour.yaml"
        edited.write_text(edited.read_text().replace("exactly 1 line", "just one line"))
        again = json.loads(teach(home, file, "--plan-only", "--json", **env).stdout)
        assert len(reader.asked) == asked, "words that were read are not read again"
        assert again["folder"] == first["folder"] and "just one line" in str(again["spec"]["rules"])
        other = json.loads(
            teach(home, said(tmp_path, fields=None, never="guess"), "--plan-only", "--json", **env).stdout
        )
        assert len(reader.asked) > asked and other["folder"] != first["folder"], "other words are"
    [event, *_] = Store(home).read("SELECT data FROM events WHERE event = 'words.read'")
    assert json.loads(event["data"])["questions"] == asked and "water" not in event["data"]


def test_a_model_that_is_started_after_a_yes_reads_the_words_and_its_start_is_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home, slow = tmp_path / "home", tmp_path / "vllm"
    slow.write_text(f'#!/bin/sh\nsleep 2\nexec {sys.executable} {FIXTURES / "stub_chat.py"} "$@"\n')
    slow.chmod(0o755)
    model = make_tiny_model(tmp_path / "driver-model")
    settings = Settings(home=home, vllm=str(slow), driver=DriverSettings(model=str(model), routing=False))
    out = Output(as_json=True, stream=True)
    ws, args = Workspace(Store(home), str(slow), out.emit), argparse.Namespace(yes=True)
    try:
        path, read = read_spec(said(tmp_path, fields=None), args, settings, ws, out, may_start=True)
        assert servers.list_servers(home) == [], "the steps that follow have its memory"
    finally:
        servers.stop_all(home)
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    events = [one["event"] for one in told]
    assert events.index("approval.decided") < events.index("step.progress"), "the price comes before the start"
    assert all(one["estimated_seconds"] > 0 for one in told if one["event"] == "step.progress")
    assert read.by == "driver-model" and path == tmp_path / "description.yaml"


def test_without_a_model_and_a_terminal_what_is_stated_is_taken_and_that_is_said(tmp_path: Path) -> None:
    done = teach(tmp_path / "home", said(tmp_path, fields=None), "--plan-only", "--json")
    told = json.loads(done.stdout)
    assert told["spec"]["attributes"][0]["name"] == "topic" and "answer" not in told["spec"], "no word decides a form"
    assert told["read_by"] == "" and "nobody has read your words" in told["left_out"][0]


def test_the_example_is_read_without_a_complaint_and_can_be_planned_at_once(tmp_path: Path) -> None:
    home, file = tmp_path / "home", tmp_path / "my task.yaml"
    told = json.loads(teach(home, "--example", file, "--json").stdout)
    assert told == {"file": str(file), "next": f"tunesmith teach {shlex.quote(str(file))} --plan-only"}
    words, stated = words_in(file)
    read = verified(words, stated)
    assert read.left_out == () and spec_faults(read.spec) == () and len(words.examples) == EXAMPLES_MIN
    named = re.findall(r"`(\w+)`", file.read_text())
    assert named and not {*yaml.safe_load(file.read_text()), *named} - {*Spec.model_fields, *STATED}
    priced = teach(home, *shlex.split(told["next"])[2:], "--card", "4090", "--json")
    assert priced.returncode == 0 and json.loads(priced.stdout)["estimated_seconds"] > 60, priced.stderr


def test_the_example_replaces_no_file_and_is_no_behaviour_of_the_home(tmp_path: Path) -> None:
    home, file = tmp_path / "home", tmp_path / "behaviour.yaml"
    assert "tunesmith teach behaviour.yaml --plan-only" in teach(home, "--example", "--rows", "x.csv").stdout
    file.write_text("mine")
    for again in (teach(home, "--example"), teach(home, file, "--example")):
        assert again.returncode == 2 and "name another file: tunesmith teach --example" in again.stderr
    assert file.read_text() == "mine" and described_in(home) == {}


def test_a_file_that_was_changed_into_what_its_examples_contradict_is_told_so(tmp_path: Path) -> None:
    home = tmp_path / "home"
    folder = Path(json.loads(teach(home, said(tmp_path), "--plan-only", "--json").stdout)["folder"])
    edited, text = folder / "behaviour.yaml", (folder / "behaviour.yaml").read_text()
    edited.write_text(text.replace("examples:", "near_misses: [water the palm]\nexamples:"))
    told = json.loads(teach(home, folder, "--plan-only", "--json").stdout)
    assert told["left_out"] == ["the near miss 'water the palm' is an example"]
    edited.write_text(text.replace("template: '{PLANT} gets {LITRES}'", "template: '{PLANT}: {LITRES}'"))
    done = teach(home, folder, "--plan-only", "--json")
    assert done.returncode == 2 and "the answer of example 1 is not of the form" in done.stderr + done.stdout


def test_a_hub_model_is_pinned_at_its_newest_commit_before_the_price(tmp_path: Path) -> None:
    with hub_of(make_tiny_model(tmp_path / "on-the-hub")) as hub:
        args = (said(tmp_path), "--model", MODEL, "--plan-only", "--json")
        done = teach(tmp_path / "home", *args, **hub.env)
    assert done.returncode == 0 and f"{MODEL} is at commit {COMMIT}, the newest on the hub" in done.stderr, done.stderr
    plan = json.loads(done.stdout)["plan"]["steps"]
    assert {"stage": "base", "fields": {"model": MODEL, "revision": COMMIT}} in plan
    offline = teach(tmp_path / "other", *args, HF_HUB_OFFLINE="1")
    assert offline.returncode == 2 and "--revision" in offline.stderr
    assert not (tmp_path / "other" / "behaviours").exists(), "what was written for a plan that is refused goes again"


def test_the_same_words_are_one_behaviour_and_other_words_another(tmp_path: Path) -> None:
    home = tmp_path / "home"
    folders = [
        json.loads(teach(home, said(tmp_path, **changes), "--plan-only", "--json").stdout)["folder"]
        for changes in ({}, {}, {"never": "guess"})
    ]
    assert folders[0] == folders[1] != folders[2]
    edited = Path(folders[0]) / "behaviour.yaml"
    edited.write_text(edited.read_text().replace("how much, or a dash", "litres, or a dash"))
    told = json.loads(teach(home, edited, "--plan-only", "--json").stdout)
    assert told["folder"] == folders[0] and told["proposed"] == ["near_misses"], "what was edited there is said"


@table(
    ("changes", "wanted"),
    [
        ({"examples": SAID["examples"][:1]}, "description.yaml has 1 example; give at least 3 (prompt + answer)"),
        ({"examples": None}, "description.yaml has 0 examples; give at least 3"),
        ({"fields": 3}, "fields are lists of names"),
        ({"kolour": "red"}, "kolour"),
    ],
)
def test_only_what_nothing_can_stand_for_is_refused(changes: dict[str, object], wanted: str, tmp_path: Path) -> None:
    done = teach(tmp_path / "home", said(tmp_path, **changes), "--json", "--yes")
    assert done.returncode == 2 and wanted in json.loads(done.stdout)["message"]
    assert Store(tmp_path / "home").runs() == [] and not (tmp_path / "home" / "behaviours").exists()


@table(
    ("given", "told", "not_told"),
    [
        ({"plan_only": True, "yes": False}, "you are asked whether to start one", "--yes"),
        ({"plan_only": True, "yes": True}, "without --plan-only --yes starts one", "asked"),
        ({"plan_only": False, "yes": True}, "beside rows none is started", "asked"),
    ],
)
def test_nobody_is_promised_a_question_that_is_not_asked(given: dict[str, bool], told: str, not_told: str) -> None:
    why = why_none_is_started(argparse.Namespace(**given))
    assert told in why and not_told not in why


def test_examples_alone_are_enough(tmp_path: Path) -> None:
    alone = dict.fromkeys(("say", "what", "fields"))
    told = json.loads(teach(tmp_path / "home", said(tmp_path, **alone), "--plan-only", "--json").stdout)
    assert {"when", "what", "never"} <= set(told["proposed"]) and told["read_by"] == "" and told["left_out"] == []


def test_without_a_terminal_nothing_is_bought_and_what_waits_is_one_document(tmp_path: Path) -> None:
    done = teach(tmp_path / "home", said(tmp_path), "--pace", "fast", "--json")
    assert done.returncode == 3, done.stderr
    told = json.loads(done.stdout)
    assert told["stage"] == "base" and told["plan_hash"] and told["exit_code"] == 3
    [*_, step] = Store(tmp_path / "home").priced_steps()
    assert (step.stage, step.status) == ("base", "planned")
