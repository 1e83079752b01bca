"""The runs that tests build by hand use no name that production never writes."""

from __future__ import annotations

from pathlib import Path

from tests.fixtures.stored_runs import baseline_run, failed_run, finished_run, suite
from tests.fixtures.tables import table
from tests.fixtures.tiny_model import make_tiny_model
from tunesmith.memory.records import Artifact
from tunesmith.tools.core.stage import Estimate, Plan
from tunesmith.tools.evaluation.pairing import Evaluations
from tunesmith.tools.evaluation.protocol import Sampling
from tunesmith.tools.machine.processes import ProcessId
from tunesmith.tools.pipeline import catalog
from tunesmith.tools.serving.model_server import key_of
from tunesmith.tools.serving.servers import Server
from tunesmith.tools.serving.spec import ServerSpec


@table("build", [finished_run, baseline_run, failed_run])
def test_requests_plans_and_results_have_the_fields_of_their_stage(build: object, tmp_path: Path) -> None:
    store, run = build(tmp_path / "home")  # type: ignore[operator]
    steps = store.steps(run)
    assert steps
    for step in steps:
        stage = catalog.BY_NAME[step.stage].load()
        assert set(step.request or {}) <= set(stage.request.model_fields), step.stage
        assert set(step.result or {}) <= set(stage.result.model_fields), step.stage
        assert set(step.plan) <= set(Plan.model_fields), step.stage
        assert set(step.plan.get("estimate", {})) <= set(Estimate.model_fields), step.stage


def test_comparability_keys_have_the_parts_of_a_served_models_key(tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path / "model")
    spec = ServerSpec(model_dir=str(folder), served_name="base")
    server = Server("s", spec, 1, "bench", ProcessId(1, 1.0, "b"), tmp_path / "s", tmp_path / "log", "vllm 0.32.0")
    model = Artifact("a1", "r1", "s1", "base", folder, "ab" * 32, 1, (), {})
    written = {**key_of(server, model, suite()), **Sampling(96).key}
    store, run = finished_run(tmp_path / "home")
    keys = [key for by_arm in Evaluations.of(store, run).keys.values() for key in by_arm.values()]
    assert len(keys) == 5, "baseline, base and adapter on one server, merged, quantized"
    for key in keys:
        assert {name: type(value) for name, value in key.items()} == {n: type(v) for n, v in written.items()}
