"""`teach --plan-only --card`: a plan for a machine that is not here, by configs alone, to its last step and refusal."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.agent.commands.test_teach import said, teach
from tests.fixtures.hub_stand_in import COMMIT, MODEL, Hub, hub_of
from tests.fixtures.tables import table
from tests.fixtures.tiny_model import make_tiny_model
from tunesmith.memory.store import Store
from tunesmith.tools.core.format import size
from tunesmith.tools.core.stage import GIB
from tunesmith.tools.models.families import config_of
from tunesmith.tools.models.model_names import hub_name

pytestmark = pytest.mark.heavy

LARGE = "meta-llama/Llama-3.3-70B-Instruct"
KEYS = {"seconds", "vram_bytes", "ram_bytes", "disk_bytes"}


class Elsewhere:
    """A home without anything in it, and a hub that counts what it is asked."""

    def __init__(self, folder: Path, hub: Hub) -> None:
        self.folder, self.hub, self.home = folder, hub, folder / "home"
        self.file = said(folder)

    def plan(self, *args: object, code: int = 0, env: dict[str, str] | None = None) -> dict[str, Any]:
        done = teach(self.home, self.file, "--plan-only", "--json", *args, **(env or self.hub.env))
        assert done.returncode == code, (args, done.stderr)
        document: dict[str, Any] = json.loads(done.stdout)
        told = str(document.get("message", ""))
        assert bool(told) == bool(code) and done.stderr.count("; try ") <= 1 and told in done.stderr
        return document


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("hub") / "tiny")


@pytest.fixture
def elsewhere(tmp_path: Path, model: Path) -> Any:
    with hub_of(model) as hub:
        yield Elsewhere(tmp_path, hub)


def folder_of(parent: Path, name: str, config: object) -> Path:
    """A folder with a config and nothing else."""
    folder = parent / name
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_every_step_is_priced_for_another_card_and_nothing_is_asked_of_anybody(elsewhere: Elsewhere) -> None:
    mine = folder_of(elsewhere.folder, "mine", dict(config_of("Qwen/Qwen3-8B")))
    plans = {}
    for named in ("Qwen/Qwen3-8B", "mistralai/Mistral-7B-Instruct-v0.3", mine):
        plan = plans[str(named)] = elsewhere.plan("--model", named, "--card", "80", "--ram", 48)
        assert plan["machine"] == {
            "card": "a card of 80 GB", "cards": 1, "vram_bytes": 80 * GIB, "ram_bytes": 48 * GIB
        }  # fmt: skip
        assert all(step[key] is not None for step in plan["steps"] for key in KEYS), "to the last step"
        assert not any(step["lacks"] for step in plan["steps"]), plan["steps"]
        assert plan["total_seconds"] == sum(step["seconds"] for step in plan["steps"]) == plan["estimated_seconds"]
        assert [step["stage"] for step in plan["steps"]] == [step["stage"] for step in plan["plan"]["steps"]]
        decided = {(one["stage"], one["setting"]): one for one in plan["decisions"]}
        assert decided["base", "measuring"]["value"] == "16" and "GiB of VRAM" in decided["base", "measuring"]["why"]
        fields = {step["stage"]: step["fields"] for step in plan["steps"]}
        assert all(fields[stage][name] == one["value"] for (stage, name), one in decided.items()
                   if stage in ("preflight", "train", "merge", "quantize", "deploy"))  # fmt: skip
    assert plans[str(mine)]["steps"][-1]["vram_bytes"] == plans["Qwen/Qwen3-8B"]["steps"][-1]["vram_bytes"]
    assert elsewhere.hub.asked == [] and Store(elsewhere.home).runs() == []
    assert not (elsewhere.home / "models").exists()


@table(
    ("machine", "needed", "free", "instead"),
    [(("--card", "8"), "VRAM", "room for 7.4 GiB", "a base such as "),
     (("--ram", "4"), "RAM", "room for 3.6 GiB", "a base"),
     (("--card", "2x24"), "VRAM", "room for 23.4 GiB", "")],
)  # fmt: skip
def test_what_does_not_fit_is_told_in_one_sentence_and_in_each_step_and_nothing_is_fetched(
    machine: tuple[str, str], needed: str, free: str, instead: str, elsewhere: Elsewhere
) -> None:
    plan = elsewhere.plan("--model", LARGE, *machine, code=2)
    lacks = [lack for step in plan["steps"] for lack in step["lacks"]]
    assert all(set(lack) == {"what", "needed_bytes", "free_bytes", "try"} for lack in lacks)
    [told] = [one for one in lacks if plan["message"].endswith(sentence_of(one))][:1]
    assert told["what"] == needed and free in plan["message"] and instead in told["try"][0]
    assert "another program" not in plan["message"]
    assert elsewhere.hub.asked == [] and not (elsewhere.home / "models").exists()


def sentence_of(lack: dict[str, Any]) -> str:
    """Its end, of each of several cards too."""
    return f", there is room for {size(lack['free_bytes'])}; try {', or '.join(lack['try'])}"


def test_on_a_terminal_what_lacks_stands_before_the_table(elsewhere: Elsewhere) -> None:
    args = ("--plan-only", "--model", LARGE, "--card", "3060")
    done = teach(elsewhere.home, elsewhere.file, *args, **elsewhere.hub.env)
    assert done.returncode == 2 and done.stderr.count("GiB of VRAM") == 1
    told = done.stdout[done.stdout.index("RTX 3060: 11.6 GiB VRAM") :]
    assert told.index("does not fit: ") < told.index("when its turn comes") and "step" in told


def test_a_base_that_is_too_large_for_one_card_is_told_in_a_line_what_fits_and_nothing_of_several_machines(
    elsewhere: Elsewhere,
) -> None:
    args = ("--plan-only", "--card", "8", "--model")
    done = teach(elsewhere.home, elsewhere.file, *args, "Qwen/Qwen3-8B", **elsewhere.hub.env)
    assert done.returncode == 2 and "Ray" not in done.stdout + done.stderr
    lines = done.stdout.splitlines()
    [lacks] = [line for line in lines if line.startswith("does not fit: ")]
    number, stage = re.search(r"step (\d+) \((\w+)\) needs", done.stderr).groups()  # type: ignore[union-attr]
    assert sum(line.startswith(f"{number} {stage} ") for line in lines) == 1, "numbered as the error numbers it"
    assert re.search(rf"steps .*\b{number}\b.* need up to .* of VRAM", lacks)
    [columns] = [line.split() for line in lines if line.startswith("step ")]
    assert columns == ["step", "what", "time", "VRAM", "RAM", "disk"]
    advised = re.search(r"try a base such as (\S+) ", lacks)
    assert advised and advised[1] in done.stderr
    fitting = elsewhere.plan("--model", hub_name(advised[1]), "--card", "8")
    assert not any(step["lacks"] for step in fitting["steps"]), "what is advised does for the whole plan"


@table(
    ("args", "sentence"),
    [
        (("--card", "0"), "no card is known as '0'; give a size in GB, such as 24 or 2x24, or one of "),
        (("--card", "4900"), "or one of RTX 4090, "),
        (("--card", "24", "--ram", "0"), "'0' is no number of GiB above 0, such as 32"),
        (("--card", "24", "--model", "./nothing-here"), "nothing-here"),
        (("--card", "24", "--on", "ray"), "ray"),
    ],
)
def test_what_is_no_machine_or_no_model_is_one_sentence(
    args: tuple[str, ...], sentence: str, elsewhere: Elsewhere
) -> None:
    told = elsewhere.plan(*args, code=2)
    assert sentence in told["message"] and len(told["message"]) < 300
    assert not (elsewhere.home / "behaviours").exists() and elsewhere.hub.asked == []


def test_another_machine_is_never_carried_out_on(elsewhere: Elsewhere) -> None:
    done = teach(elsewhere.home, elsewhere.file, "--card", "24", "--yes", "--json", **elsewhere.hub.env)
    assert done.returncode == 2 and "give --plan-only too" in done.stderr and Store(elsewhere.home).runs() == []


def test_configs_without_sizes_and_folders_without_one_are_refused(elsewhere: Elsewhere) -> None:
    for config, sentence in (({"model_type": "llama"}, "does not say its sizes"), ({}, "says anything")):
        folder = folder_of(elsewhere.folder, f"of-{len(config)}", config)
        assert sentence in elsewhere.plan("--model", folder, "--card", "24", code=2)["message"]
    (elsewhere.folder / "empty").mkdir()
    assert "config.json" in elsewhere.plan("--model", elsewhere.folder / "empty", "--card", "24", code=2)["message"]


def test_of_a_model_that_is_not_written_down_the_config_is_read_and_no_weights(elsewhere: Elsewhere) -> None:
    for machine in ((), ("--card", "24")):
        plan = elsewhere.plan("--model", MODEL, *machine)
        assert all(step[key] is not None for step in plan["steps"] for key in KEYS), "to the last step"
        assert {"model": MODEL, "revision": COMMIT} in [step["fields"] for step in plan["plan"]["steps"]]
    assert not any(name.endswith(".safetensors") for name in elsewhere.hub.fetched)
    hub = elsewhere.hub
    gone: list[tuple[str, Any, str]] = [
        ("listing", lambda to: to.send(b"{}", status=401), "gated, log in"),
        ("listing", lambda to: to.send(b"{}", status=403), "accept its licence"),
        ("", None, "org/tiny at 0123456789ab has no config.json"),
    ]
    for name, answer, sentence in gone:
        hub.answers = {name: answer} if name else {}
        hub.entries = lambda entries: [one for one in entries if one["rfilename"] != "config.json"]
        told = elsewhere.plan("--model", MODEL, "--card", "24", code=2)
        assert sentence in told["message"], told["message"]
    assert Store(elsewhere.home).runs() == []
