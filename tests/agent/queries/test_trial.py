"""What is asked of a finished model: how to try it, where it is, what it changed; without a model and without blind
cases."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures import stored_runs
from tests.fixtures.asking import asked as facts_of
from tests.fixtures.stored_runs import server_record
from tunesmith.agent.queries.answer import Answer, Context
from tunesmith.agent.queries.artifacts import ArtifactQuery, TrialQuery, trial
from tunesmith.agent.queries.cases import PAIRS
from tunesmith.agent.queries.registry import answer
from tunesmith.agent.queries.settings import SettingQuery
from tunesmith.memory.errors import NotFound
from tunesmith.memory.store import Store
from tunesmith.tools.evaluation.blind import META
from tunesmith.tools.pipeline.workspace import Workspace
from tunesmith.tools.suites.case import Suite


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return stored_runs.finished_run(tmp_path_factory.mktemp("trial") / "home")[0]


def asked(store: Store, **query: Any) -> Answer:
    context = Context(Workspace(store, None, lambda event, **data: None), store.newest_run())
    told = trial(TrialQuery.model_validate(query), context)
    assert isinstance(told, Answer)
    return told


def test_how_to_try_it_names_the_newest_model_and_a_message_of_its_kind(finished: Store) -> None:
    lines = asked(finished).lines
    assert lines[0].startswith("Type /ask and a message: the base and the quantized model of r1")
    assert lines[1].startswith("  /ask My parcel 48000 was due") and "priced" not in lines[0]
    assert not any("fetch" in line or "download" in line for line in lines)


def test_where_it_is_tells_the_files_and_where_it_answers_with_its_key(tmp_path: Path) -> None:
    store, _ = stored_runs.finished_run(tmp_path / "home")
    made = store.artifacts("r1", "quantized")[-1]
    assert "That folder is gone: quantize has to run again." in asked(store, about="where").lines
    folder = tmp_path / "home" / "runs" / "q"
    folder.mkdir(parents=True)
    with store.write() as conn:
        conn.execute("UPDATE artifacts SET path = ? WHERE artifact = ?", (str(folder), made.id))
    made = store.artifact(made.id)
    unserved = asked(store, about="where").lines
    assert str(made.path) in unserved[0] and any("deploy the quantized model" in line for line in unserved)
    (tmp_path / "home" / "servers").mkdir()
    (tmp_path / "home" / "servers" / "1-x.json").write_text(json.dumps(server_record(made.id)))
    lines = asked(store, about="where").lines
    assert any("http://127.0.0.1:8411/v1" in line and "does not answer" in line for line in lines)
    assert any("1-x.key" in line for line in lines) and not any("not served" in line for line in lines)


def test_before_and_after_shows_changed_cases_first_a_lost_one_among_them(finished: Store) -> None:
    found = facts_of(finished, "trial", about="before_and_after")
    assert found.of["outcome"] == "flipped"
    assert (found.of["lost"], found.of["gained"]) == (1, 55) and found.most == PAIRS
    assert [one["quantized"] for one in found.facts[:PAIRS]] == ["fails", "passes", "passes"]
    assert "parcel" in str(found.texts) and "parcel" not in found.for_model()


def test_no_blind_case_is_shown(tmp_path: Path) -> None:
    store, _ = stored_runs.finished_run(tmp_path / "home")
    path = store.artifacts("r1", "suite")[-1].path
    suite = Suite.from_json(path.read_text())
    blind = {"split": "blind"}
    cases = [c.model_copy(update={"metadata": blind} if c.case_id != "target-003" else {}) for c in suite.cases]
    path.write_text(Suite(cases=tuple(cases)).to_json())
    with store.write() as conn:  # what its record does not say its file does
        conn.execute("UPDATE artifacts SET meta = json_remove(meta, ?) WHERE kind = 'suite'", (f"$.{META}",))
    found = facts_of(store, "trial", about="before_and_after")
    assert [one["case"] for one in found.facts if one["block"] == "target"] == ["target-003"]
    assert found.left_out["blind cases"] == 55
    assert asked(store).lines[1].startswith("  /ask cant log in")


def test_without_a_model_or_a_measurement_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no model was made yet"):
        asked(Store(tmp_path / "empty"))
    store, _ = stored_runs.baseline_run(tmp_path / "home")
    assert "the only model so far" in asked(store).lines[0]
    assert "only its base" in asked(store, about="where").lines[0]
    with pytest.raises(NotFound, match="no two arms"):
        asked(store, about="before_and_after")


def test_a_gguf_is_told_with_its_file_its_size_and_the_bits_that_it_was_written_with(tmp_path: Path) -> None:
    store, run = stored_runs.finished_run(tmp_path / "home")
    build = stored_runs.Builder(store, run)
    merged, folder = store.artifacts(run, "merged")[-1], tmp_path / "home" / "runs" / "gguf"
    folder.mkdir(parents=True)
    (folder / "model-Q4_0.gguf").write_bytes(b"GGUF")
    step = build.step("release", arm="merged", request={"format": "gguf", "tensor_type": "Q4_0"})
    made = build.artifact(step, "release", "", merged.id, bytes_=80 << 20, format="gguf", tensor_type="Q4_0")
    with store.write() as conn:
        conn.execute("UPDATE artifacts SET path = ? WHERE artifact = ?", (str(folder), made))
    build.end(step, 20.0, 1, {"artifact": made})
    context = Context(Workspace(store, None, lambda event, **data: None), store.newest_run())
    for about in ("path", "size", "overview"):
        said = " ".join(answer(ArtifactQuery(made="release", about=about), context).lines)
        assert f"(model-Q4_0.gguf, 80.0 MiB, Q4_0, 4.5 bits a weight) lies in {folder};" in said
        assert "80.0 MiB, 30% of the merged model's 269 MiB" in said
    bits = " ".join(answer(SettingQuery(fields=("scheme",)), context).lines)
    assert "tensor_type was Q4_0 in release" in bits
    size = answer(ArtifactQuery(made="quantized", about="size"), context).lines[0]
    assert "42% of the merged and the base model's 269 MiB" in size
