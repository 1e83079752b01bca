"""The README and the pages of docs/: the table is the catalogue, and every command in them does what it says."""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest
import yaml

from tests.fixtures.demo_run import HANG_S, Demo, tunesmith
from tests.fixtures.tables import table
from tests.gpu.table import TASKS
from tunesmith.tools.data.behaviour import load_behaviour
from tunesmith.tools.data.proposal import stated_in
from tunesmith.tools.data.spec import Spec
from tunesmith.tools.data.verify import spec_faults
from tunesmith.tools.machine.gpus import measure_gpus
from tunesmith.tools.pipeline import catalog

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PAGES = {path.name: path.read_text() for path in sorted((ROOT / "docs").glob("*.md"))}
EVERYWHERE = "\n".join([README, *PAGES.values()])
COMMANDS = sorted(set(re.findall(r"^ {4,8}(tunesmith .*|make .*)$", EVERYWHERE, re.MULTILINE)))
STAGES = tuple(catalog.BY_NAME)


def test_the_table_of_stages_is_the_catalogue() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \| (yes|no) \|$", README, re.MULTILINE)
    assert rows == [(e.name, e.summary, "yes" if e.expensive else "no") for e in catalog.STAGES]


def test_make_targets_of_the_readme_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {word for command in COMMANDS if command.startswith("make") for word in command.split()[1:2]}
    assert named and named <= targets


@table("fails", ["", "setup", "lint", "test"])
def test_ci_runs_set_up_lint_and_the_readmes_own_test_command_and_fails_with_any(fails: str, tmp_path: Path) -> None:
    assert "    make test\n" in README
    make = tmp_path / "make"
    make.write_text(f'#!/bin/sh\necho "make $*"\necho "told $PYTEST_FLAGS" >&2\n[ "$*" != "{fails}" ]\n')
    make.chmod(0o755)
    env = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "PYTEST_FLAGS": "-x"}
    done = subprocess.run([ROOT / ".ci" / "run"], env=env, cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["make setup", "make lint", "make test"]
    assert "told -x --durations=30\n" in done.stderr, "the slowest tests are named"
    assert done.returncode == bool(fails) and (f"make {fails} failed" in done.stderr) == bool(fails)


def test_help_names_every_stage_and_every_exit_code_is_documented() -> None:
    told = subprocess.run(
        [sys.executable, "-m", "tunesmith.agent", "--help"], capture_output=True, text=True, check=True
    ).stdout
    assert all(re.search(rf"^ +{stage}\b", told, re.MULTILINE) for stage in STAGES)
    assert all(f"\n| {code} |" in PAGES["cli.md"] for code in range(5))


def test_the_behaviour_of_the_docs_is_one(tmp_path: Path) -> None:
    told = re.search(r"```yaml\n(kind: examples\n.+?)```", PAGES["behaviours.md"], re.DOTALL)
    assert told is not None
    (tmp_path / "behaviour.yaml").write_text(told[1])
    behaviour = load_behaviour(str(tmp_path))
    assert isinstance(behaviour, Spec)
    assert behaviour.rules and spec_faults(behaviour) == ()


def test_what_the_docs_say_of_a_file_is_what_a_file_may_state() -> None:
    told = re.search(r"```yaml\n(template: .+?)```", PAGES["behaviours.md"], re.DOTALL)
    assert told is not None
    values = {name: value for name, value in yaml.safe_load(told[1]).items() if name != "every_message"}
    stated = stated_in(values, "docs")
    assert stated.template and len(stated.parts) == 5 and list(stated.labels) == ["urgent", "normal"]


def test_the_readme_is_two_screens_and_its_links_lead_somewhere() -> None:
    assert len(README.splitlines()) <= 140
    for page, text in {"README.md": README, **{f"docs/{name}": page for name, page in PAGES.items()}}.items():
        for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
            assert (ROOT / page).parent.joinpath(link).is_file(), f"{page} links {link}"


@pytest.fixture(scope="module")
def project(demo: Demo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the reader's own files, as the README names them."""
    folder = tmp_path_factory.mktemp("project")
    base = next((demo.home / "models").iterdir())
    shutil.copytree(base, folder / "my-model")
    bundled = Path(str(files("tunesmith.prompts"))) / "demo"
    (folder / "night.yaml").write_text("name: night\nsteps:\n- {stage: base, model: my-model}\n")
    shutil.copy(bundled / "suites" / "target.yaml", folder / "my-cases.yaml")
    shutil.copy(bundled / "behaviour.yaml", folder / "my-behaviour.yaml")
    shutil.copy(bundled / "rehearsal.txt", folder / "rehearsal.txt")
    pairs = [(f"A letter of {day} {month} about the garden", f"Noted: {day} {month}.") for day in range(1, 9)
             for month in ("May", "June", "July")]  # fmt: skip
    (folder / "my-letters.jsonl").write_text(
        "".join(json.dumps({"prompt": p, "completion": c}) + "\n" for p, c in pairs)
    )
    shown = yaml.safe_load((folder / "my-behaviour.yaml").read_text())["examples"]
    rows = [{"question": f"{one['prompt']} No. {n}", "reply": one["answer"]} for one in shown for n in range(8)]
    with (folder / "a.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["question", "reply"])
        writer.writeheader()
        writer.writerows(rows[::2])
    (folder / "b.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[1::2]))
    back = [json.dumps({"prompt": row["question"], "answer": row["reply"]}) for row in rows]
    (folder / "what-came-back.jsonl").write_text("\n".join(["```jsonl", *back, "```"]))
    return folder


@pytest.mark.e2e
@pytest.mark.alone
@pytest.mark.xdist_group("demo")
@pytest.mark.timeout(HANG_S + 600)
@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("tunesmith ")])
def test_every_command_of_the_readme_and_the_docs_runs(
    command: str, demo: Demo, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    words = [demo.run if word == "r1" else word for word in shlex.split(command)[1:]]
    if "RUN" in words or "PLAN.yaml" in words or "FILE" in words:
        pytest.fail(f"{command}: a command to copy has no placeholder")
    asks = words[0] in STAGES and words[0] != "inspect"
    if asks:
        words += ["--run", demo.run] if words[0] != "base" else []
    agrees_to_a_budget = words[0] == "queue" and "--max-hours" in words
    if agrees_to_a_budget:
        tunesmith(demo.home, "queue", "add", "night.yaml")
    done = tunesmith(demo.home, *words)
    # Nobody is there to say yes, so an expensive step shows its price and waits; what needs a card says that first.
    measures_a_card = words[0] == "doctor" and "--gpu" in words
    brings_rows = words[0] == "teach" and "--plan-only" not in words  # its first price waits as a step's does
    expected = {3 if asks or brings_rows or measures_a_card or agrees_to_a_budget else 0}
    if measures_a_card and not measure_gpus():
        expected = {2}
    if "--on" in words and words[words.index("--on") + 1] == "ray":
        expected = {2}  # no other machine is named here
    if words[0] == "ask":
        expected = {0, 3}  # 0 where the model is served
    if words[0] == "rate" and "--show" not in words:
        expected = {2}  # a judgement is a person's keys
    if words[0] == "compare":
        expected = {0, 4}  # whether the adapter lost something is for its training to say
    if lack := re.search(r"needs ([\d.]+) GiB of disk in all, ([\d.]+) GiB free", done.stderr):
        assert float(lack[1]) >= float(lack[2])  # a small disk is a right refusal, in numbers and before anything began
        expected = {2}
    assert done.returncode in expected, done.stderr


@pytest.mark.heavy
@pytest.mark.skipif(bool(measure_gpus()), reason="a card is here")
def test_the_check_of_a_card_says_where_there_is_none_what_to_try(tmp_path: Path) -> None:
    [command] = [c for c in COMMANDS if "doctor --gpu" in c]
    done = tunesmith(tmp_path / "home", *shlex.split(command)[1:])
    assert done.returncode == 2 and "run `nvidia-smi`" in done.stderr and not (tmp_path / "home").exists()


def test_every_item_of_the_check_of_a_card_is_in_the_docs() -> None:
    section = PAGES["gpu-check.md"]
    rows = [line.split("|")[2] for line in section.splitlines() if line.startswith("|")]
    told = {name for row in rows for name in re.findall(r"`([^`]+)`", row)}
    items = {name for task in TASKS for name in task.gives}
    kinds = {name.removesuffix(" …") for name in told if name.endswith("…")}
    assert {name for name in told if not name.endswith("…")} <= items
    assert {name for name in items - told if not name.startswith(tuple(kinds))} == {
        "GPTQ seconds, processor", *(name for name in items if name.endswith(", W4A16")),
    }  # fmt: skip


@pytest.mark.e2e
@pytest.mark.alone
@pytest.mark.xdist_group("demo")
@pytest.mark.timeout(HANG_S + 600)
def test_a_step_that_waits_says_what_it_would_cost(demo: Demo) -> None:
    waiting = tunesmith(demo.home, "train", "--run", demo.run, "--json")
    assert waiting.returncode == 3
    events = [json.loads(line) for line in waiting.stdout.splitlines()]
    required = next(e for e in events if e["event"] == "approval.required")
    assert required["stage"] == "train" and required["estimated_seconds"] > 0 and len(required["plan_hash"]) == 64
