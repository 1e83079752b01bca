"""A training reports to nobody, whatever the user's environment and packages would switch on in other programs."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fixtures.network import PROXY_VARIABLES, hears
from tests.fixtures.tables import table
from tunesmith.tools.machine.torch_env import NO_REPORTS, OFFLINE, TORCH_ENV
from tunesmith.tools.pipeline import catalog
from tunesmith.tools.pipeline.launcher import worker_environment
from tunesmith.tools.serving.spec import ServerSpec, environment
from tunesmith.tools.suites.grading import CannotGrade
from tunesmith.tools.suites.grading.embedding import LocalEmbedder

ROOT = Path(__file__).parents[3]
ARGUMENTS = ("SFTConfig", "TrainingArguments")
TRACKERS = ("wandb", "mlflow", "comet_ml", "neptune", "clearml", "trackio", "swanlab", "codecarbon", "dvclive")
SPY = """
import os
def __getattr__(name):
    if name in ("init", "log", "start_run", "set_experiment", "start", "Experiment", "Task", "Live", "Run", "login"):
        with open(os.environ["SPY"], "a") as file:
            file.write(f"{__name__}.{name}\\n")
    raise AttributeError(name)
"""
TRAIN = """
import json, sys
from pathlib import Path
from tunesmith.tools.training.train_job import LoraSettings, ToTrain, train_lora
base, rows, out = map(Path, sys.argv[1:])
settings = LoraSettings(lora_rank=4, lora_alpha=8, learning_rate=5e-3, max_steps=2, batch_size=4, save_steps=2)
train_lora(ToTrain(base, rows, out / "adapter", settings, checkpoints_dir=out / "checkpoints"))
"""


@pytest.mark.heavy
@table("stage", catalog.ENTRIES)
def test_every_worker_starts_with_what_switches_reports_off(stage: str) -> None:
    env = worker_environment(catalog.ENTRIES[stage].load(), {}, [])
    assert NO_REPORTS.items() < OFFLINE.items() <= env.items()


@table(
    ("stage", "fields"),
    [("base", {"model": "org/tiny", "revision": "0" * 40}), ("import", {"source": "hub:org/rows@" + "0" * 40})],
)
def test_a_worker_has_the_hub_only_where_its_request_names_it(stage: str, fields: dict[str, object]) -> None:
    declared = catalog.ENTRIES[stage].load()
    env = worker_environment(declared, fields, [])
    assert NO_REPORTS.items() <= env.items() and "HF_HUB_OFFLINE" not in env
    assert OFFLINE.items() <= worker_environment(declared, dict.fromkeys(fields, ""), []).items()


def test_what_no_step_starts_finds_no_hub_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`suite grade` starts the embedding model from the command line, and a deployed server outlives its worker."""
    # stands in for what the model loads first, and ends the process with its environment as its last words
    (tmp_path / "torch.py").write_text("import json, os\nraise SystemExit(json.dumps(dict(os.environ)))")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    with LocalEmbedder(tmp_path) as embedder, pytest.raises(CannotGrade) as ended:
        embedder.embed(["text"])
    assert OFFLINE.items() <= json.loads(str(ended.value).partition("not run: ")[2]).items()
    assert OFFLINE.items() <= environment(ServerSpec(model_dir=str(tmp_path), served_name="m"), "vllm").items()


def test_every_trainers_arguments_name_no_tracker() -> None:
    calls = [
        (path.name, {word.arg: word.value for word in node.keywords})
        for path in (ROOT / "tools").rglob("*.py")
        if any(name in (text := path.read_text()) for name in ARGUMENTS)
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id.endswith(ARGUMENTS)
    ]  # fmt: skip
    assert [name for name, _ in calls] == ["trainer.py"]
    for name, words in calls:
        assert isinstance(words["report_to"], ast.Constant) and words["report_to"].value == "none", name


@pytest.mark.lab
def test_a_training_beside_every_tracker_reports_to_none(tiny_llama: Path, rows_file: Path, tmp_path: Path) -> None:
    for name in TRACKERS:
        (tmp_path / "packages" / name).mkdir(parents=True)
        (tmp_path / "packages" / name / "__init__.py").write_text(SPY)
        info = tmp_path / "packages" / f"{name}-9.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 9.0\n")
    with hears() as network:
        env = {
            **os.environ, **dict.fromkeys(PROXY_VARIABLES, network.url()), "SPY": str(tmp_path / "spy"),
            "PYTHONPATH": str(tmp_path / "packages"), "WANDB_API_KEY": "k", "WANDB_PROJECT": "p", "COMET_API_KEY": "k",
            "MLFLOW_TRACKING_URI": network.url(), "NEPTUNE_API_TOKEN": "k", "TRACKIO_SPACE_ID": "a/b",
            "HF_ENDPOINT": network.url(), **OFFLINE, **TORCH_ENV,
        }  # fmt: skip
        env.pop("CI", None)  # trl is silent there by itself
        argv = [sys.executable, "-c", TRAIN, str(tiny_llama), str(rows_file), str(tmp_path / "out")]
        done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert network.requests == [] and not (tmp_path / "spy").exists()
    assert json.loads((tmp_path / "out" / "adapter" / "adapter_config.json").read_text())
