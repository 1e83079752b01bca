"""A base from the hub: its size is in the price, and what must not be loaded is refused before anything starts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.hub_stand_in import COMMIT, Hub, hub_of
from tests.fixtures.terminal import Tunesmith
from tests.fixtures.tiny_model import make_tiny_model
from tunesmith.memory.store import Store
from tunesmith.tools.core.estimate import STORE_BYTES

pytestmark = pytest.mark.heavy


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    with hub_of(make_tiny_model(tmp_path / "on-the-hub", weight_bytes=4_000_000)) as made:
        yield made


def weights_of(size: int) -> Any:
    """The listing, with another size of the weights."""
    return lambda entries: [e | {"size": size} if e["rfilename"] == "model.safetensors" else e for e in entries]


def base(tunesmith: Tunesmith, hub: Hub, *more: str, **env: str) -> Any:
    return tunesmith("base", "--model", "org/tiny", "--revision", COMMIT, "--json", *more, **{**hub.env, **env})


def test_the_price_holds_the_size_that_the_hub_tells(tunesmith: Tunesmith, hub: Hub) -> None:
    (hub.folder / "pytorch_model.bin").write_bytes(b"\x80\x04" * 1000)  # neither fetched nor counted
    (hub.folder / "onnx").mkdir()
    (hub.folder / "onnx" / "model.safetensors").write_bytes(b"0" * 1000)
    hub.entries = weights_of(8 << 30)
    done = base(tunesmith, hub)
    assert done.returncode == 3, done.stderr
    plan = json.loads(done.stdout)["plan"]
    rest = sum(file.stat().st_size for name, file in hub.files().items() if name.endswith((".json", ".jinja")))
    assert plan["estimate"]["disk_bytes"] == (8 << 30) + rest + STORE_BYTES
    assert plan["writes"] == ["models/ (8.00 GiB)"] and plan["estimate"]["seconds"] > 300
    assert "model.safetensors" not in hub.fetched


def test_what_does_not_fit_on_the_disk_is_refused(tunesmith: Tunesmith, hub: Hub) -> None:
    hub.entries = weights_of(1 << 49)
    done = base(tunesmith, hub, "--yes")
    assert done.returncode == 2 and "iB of disk" in done.stderr + done.stdout


def code(hub: Hub) -> None:
    (hub.folder / "processor_config.json").write_text(json.dumps({"deep": [{"auto_map": {"x": "evil.Evil"}}]}))


def pickle_only(hub: Hub) -> None:
    (hub.folder / "model.safetensors").rename(hub.folder / "pytorch_model.bin")


@pytest.mark.parametrize(("fault", "told"), [(code, "auto_map"), (pickle_only, "only as a pickle")])
def test_what_must_not_be_loaded_is_refused_before_anything_starts(
    tunesmith: Tunesmith, hub: Hub, fault: Any, told: str
) -> None:
    fault(hub)
    done = base(tunesmith, hub, "--yes")
    assert done.returncode == 2 and told in json.loads(done.stdout)["message"], done.stdout + done.stderr
    assert Store(tunesmith.home).steps() == [] and "model.safetensors" not in hub.fetched


def test_a_model_that_the_hub_does_not_have_is_bad_input(tunesmith: Tunesmith, hub: Hub) -> None:
    done = tunesmith("base", "--model", "org/other", "--revision", COMMIT, "--yes", **hub.env)
    assert done.returncode == 2 and "404" in done.stderr and len(done.stderr.strip().splitlines()) == 1, done.stderr


@pytest.mark.parametrize("env", [{"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}])
def test_a_hub_out_of_reach_leaves_the_size_unknown_and_says_so(
    tunesmith: Tunesmith, hub: Hub, env: dict[str, str]
) -> None:
    done = base(tunesmith, hub, **env)
    assert done.returncode == 3, done.stderr
    plan = json.loads(done.stdout)["plan"]
    assert plan["writes"] == ["models/ (size unknown (the hub cannot be reached))"]
    assert "size unknown (the hub cannot be reached)" in plan["steps"][0]


def test_a_base_comes_from_the_hub_whole(tunesmith: Tunesmith, hub: Hub) -> None:
    (hub.folder / "training_args.bin").write_bytes(b"\x80\x04")
    done = base(tunesmith, hub, "--yes")
    assert done.returncode == 0, done.stderr
    copy = Path(json.loads(done.stdout)["result"]["path"])
    expected = {name for name in hub.files() if name != "training_args.bin"}
    assert {file.name for file in copy.iterdir()} == expected | {"manifest.json"}
    assert (copy / "model.safetensors").read_bytes() == (hub.folder / "model.safetensors").read_bytes()


def test_a_worker_finds_code_before_it_fetches_the_weights(hub: Hub, tmp_path: Path) -> None:
    """As where the hub was out of reach when the price was made."""
    code(hub)
    script = f"""
from pathlib import Path
from tunesmith.tools.models.base_job import materialize_hub
materialize_hub("org/tiny", {COMMIT!r}, Path({str(tmp_path / "out")!r}), print)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, **hub.env}, capture_output=True, text=True, timeout=60
    )
    assert "BadInput: processor_config.json of org/tiny has an auto_map" in done.stderr
    assert "model.safetensors" not in hub.fetched
