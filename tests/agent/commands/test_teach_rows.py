"""`teach --rows`: a file of rows of one's own is enough for a priced plan; a sentence says what is wrong with it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from tests.agent.commands.test_teach import SAID, said, teach
from tests.fixtures.own_rows import written
from tests.fixtures.tables import table
from tests.tools.imports.test_import_hub import SOURCE, Hub
from tests.tools.imports.test_import_hub import hub as hub
from tests.tools.pipeline.test_brought_rows import PAIRS
from tunesmith.memory.store import Store
from tunesmith.tools.core.local_paths import bundled_behaviour

pytestmark = pytest.mark.heavy


def test_rows_alone_become_a_priced_plan_and_nothing_is_started(tmp_path: Path) -> None:
    path = written(tmp_path / "My letters.jsonl", PAIRS)
    done = teach(tmp_path / "home", "--rows", path, "--pace", "fast", "--plan-only", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["behaviour"] == "my-letters", "named after the file"
    assert told["rows"] == {"rows": 24, "different": 24, "same": 0, "trained_on": 14, "blind": 10, "notes": []}
    stages = [step["stage"] for step in told["plan"]["steps"]]
    assert stages[:5] == ["inspect", "base", "import", "generate", "critique"] and stages[-1] == "deploy"
    assert {"merge", "quantize", "train", "baseline", "preflight"} < set(stages) and stages.count("base") == 1
    assert told["estimated_seconds"] > 60 and len(told["prices"]) == len(stages)
    assert Store(tmp_path / "home").runs() == []
    again = json.loads(teach(tmp_path / "home", "--rows", path, "--pace", "fast", "--plan-only", "--json").stdout)
    assert again["folder"] == told["folder"], "the same rows are one behaviour"


def test_a_description_beside_rows_is_the_behaviour_and_its_examples_test_unless_they_are_rows(tmp_path: Path) -> None:
    shown = [(e["prompt"], e["answer"]) for e in SAID["examples"]]
    path = written(tmp_path / "mine.jsonl", [*PAIRS, shown[0]])
    done = teach(tmp_path / "home", said(tmp_path), "--rows", path, "--blind", "8", "--plan-only", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["spec"]["when"] == SAID["say"] and told["rows"]["blind"] == 8
    tests = yaml.safe_load((Path(told["folder"]) / "suites/target.yaml").read_text())["tests"]
    assert {test["vars"]["message"] for test in tests} == {prompt for prompt, _ in shown[1:]}


def test_cases_that_ask_a_judge_who_will_not_be_there_are_not_taken_from_an_earlier_plan(tmp_path: Path) -> None:
    """Without rows the plan fetches a writer, who judges too; beside rows the base may be another model."""
    home, demo = tmp_path / "home", shutil.copy(bundled_behaviour() / "behaviour.yaml", tmp_path / "mine.yaml")
    shown = yaml.safe_load(demo.read_text())["examples"]
    rows = written(tmp_path / "mine.jsonl", [(f"{e['prompt']} No. {n}", e["answer"]) for e in shown for n in range(6)])

    def judged(*words: object) -> tuple[str, bool]:
        done = teach(home, demo, *words, "--plan-only", "--json")
        assert done.returncode == 0, done.stderr
        folder = json.loads(done.stdout)["folder"]
        return folder, any("llm-rubric" in suite.read_text() for suite in Path(folder).glob("suites/*.yaml"))

    earlier, by_model = judged()
    folder, by_model_too = judged("--rows", rows, "--model", "bundled")
    assert (by_model, by_model_too) == (True, False) and folder != earlier


@table(
    ("words", "sentence"),
    [
        (
            ["my emails"],
            "my emails is not there; name a description file, or --rows FILE for rows of your own",
        ),
        (
            ["--rows", "emails.jsonl"],
            "emails.jsonl is not there; name a file or a folder of rows, or a data",
        ),
        ([], "teach needs a FILE that says when, what and examples, or rows of your own"),
        (["two.jsonl"], "two.jsonl is a file of rows by its name; `tunesmith teach --rows two.jsonl`"),
        (["--rows", "two.jsonl"], "two.jsonl: 2 rows are too few"),
        (["--rows", "hub:somebody/rows"], "nobody has read the rows of"),
    ],
)
def test_what_is_missing_or_too_little_is_said_and_no_old_rows_are_taken(
    words: list[str], sentence: str, tmp_path: Path
) -> None:
    written(tmp_path / "two.jsonl", PAIRS[:2])
    done = teach(tmp_path / "home", *words, "--json", "--yes")
    assert done.returncode == 2 and sentence in json.loads(done.stdout)["message"]
    assert Store(tmp_path / "home").runs() == [] and not (tmp_path / "home" / "behaviours").exists()


def test_a_data_set_of_the_hub_is_listed_for_its_price_and_downloaded_by_its_own_step(tmp_path: Path, hub: Hub) -> None:
    args = (said(tmp_path), "--rows", SOURCE, "--pace", "fast", "--plan-only", "--json")
    done = teach(tmp_path / "home", *args, **hub.env)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    [step] = [step["fields"] for step in told["plan"]["steps"] if step["stage"] == "import"]
    assert step["source"] == SOURCE and told["rows"]["blind"] == 10
    assert not any("/resolve/" in asked for asked in hub.asked), "nothing of it was fetched"
