"""What runs made: files, sizes, what was made from what; and the finished model for who wants to use it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.driver.stranger_states import home_of_state
from tests.fixtures import stored_runs
from tests.fixtures.asking import asked
from tests.fixtures.stored_runs import server_record
from tunesmith.memory.errors import BadInput, NotFound
from tunesmith.memory.store import Store
from tunesmith.tools.evaluation.blind import META
from tunesmith.tools.suites.case import Suite


def moved(store: Store, made: str, folder: Path) -> None:
    """The files of an artifact lie in a folder that is there."""
    folder.mkdir(parents=True)
    with store.write() as conn:
        conn.execute("UPDATE artifacts SET path = ? WHERE artifact = ?", (str(folder), made))


def test_a_run_is_told_by_all_that_it_made_and_one_kind_by_all_that_is_known_of_it(two_runs: Store) -> None:
    every = asked(two_runs, "artifact", run="r1")
    assert every.of["artifacts"] == len(every.facts) == 12 and every.of["folder"] == str(two_runs.home / "runs" / "r1")
    [adapter] = asked(two_runs, "artifact", run="r1", made="adapter").facts
    assert adapter["bytes"] == 19 << 20 and adapter["stage"] == "train" and len(str(adapter["sha256"])) == 64
    assert adapter == asked(two_runs, "artifact", artifact="a6").facts[0]
    assert adapter["files_are_there"] is False and str(adapter["path"]).endswith("/s7/adapter")


def test_the_lineage_of_a_quantized_model_has_its_adapter_and_its_base(two_runs: Store) -> None:
    [made] = asked(two_runs, "artifact", run="r1", made="quantized").facts
    line = str(made["made_from"]).split("; ")
    assert {"merged a8 (merge s9)", "adapter a6 (train s7)", "base a1 (base s1)", "rows a3 (generate s3)"} <= {*line}
    assert f"{made['size_of_merged_share']:.2f}" == "0.42" and not any("quantized" in one for one in line)


def test_a_base_is_told_with_its_licence_as_recorded_or_as_its_package_says(tmp_path: Path) -> None:
    build = stored_runs.new_builder(tmp_path / "home")
    for source, recorded, expected in (("bundled", "", "Apache-2.0"), ("me/own", "MIT", "MIT"), ("me/own", "", None)):
        made = build.artifact(build.step("base"), "base", source=source, license=recorded)
        assert asked(build.store, "artifact", artifact=made).facts[0]["license"] == expected


def test_what_a_run_did_not_make_is_said_with_what_it_made(tmp_path: Path) -> None:
    build = stored_runs.new_builder(tmp_path / "home")
    step = build.step("base")
    with pytest.raises(NotFound, match=r"^r1 has no artifacts; it has made: nothing yet"):
        asked(build.store, "artifact", run="r1")
    with pytest.raises(NotFound, match="No file was made yet"):
        asked(build.store, "disk_use")
    build.artifact(step, "base", bytes_=5)
    with pytest.raises(NotFound, match=r"^r1 has no quantized; it has made: base"):
        asked(build.store, "artifact", made="quantized")
    with pytest.raises(BadInput, match="read_artifact takes no run"):
        asked(build.store, "artifact", artifact="a1", run="r1")
    assert asked(build.store, "artifact").of["bytes"] == asked(build.store, "disk_use").of["bytes"] == 5


def test_the_largest_files_of_all_runs_come_first_and_the_rest_is_counted(two_runs: Store) -> None:
    found = asked(two_runs, "disk_use")
    sizes = [one["bytes"] for one in found.facts]
    assert sizes == sorted(sizes, reverse=True) and found.facts[0]["kind"] == "base"  # type: ignore[type-var]
    assert found.of["artifacts"] == len(sizes) + found.left_out["smaller artifacts"] and found.of["runs"] == 2
    assert {one["run"] for one in asked(two_runs, "disk_use", run="r1").facts} == {"r1"}


def test_a_release_is_told_with_its_file_its_bits_and_what_loads_it(tmp_path: Path) -> None:
    store, run = stored_runs.finished_run(tmp_path / "home")
    build = stored_runs.Builder(store, run)
    merged, folder = store.artifacts(run, "merged")[-1], tmp_path / "home" / "runs" / "gguf"
    step = build.step("release", arm="merged", request={"format": "gguf", "tensor_type": "Q4_0"})
    made = build.artifact(step, "release", "", merged.id, bytes_=80 << 20, format="gguf", tensor_type="Q4_0")
    moved(store, made, folder)
    (folder / "model-Q4_0.gguf").write_bytes(b"GGUF")
    build.end(step, 20.0, 1, {"artifact": made})
    [fact] = asked(store, "artifact", made="release").facts
    assert fact["files"] == ["model-Q4_0.gguf"] and fact["bits_a_weight"] == 4.5 and fact["path"] == str(folder)
    assert f"{fact['size_of_merged_share']:.2f}" == "0.30" and "ollama create" in str(fact["loaded_with"])


def test_what_is_gone_is_not_loaded(tmp_path: Path) -> None:
    with home_of_state(tmp_path / "home", "r1 was released"):
        store = Store(tmp_path / "home")
        assert "ollama" in str(asked(store, "artifact", made="release").facts[0])
        store.artifacts("r1", "release")[-1].path.joinpath("model-Q8_0.gguf").unlink()
        store.artifacts("r1", "release")[-1].path.rmdir()
        assert "ollama" not in str(asked(store, "artifact", made="release").facts[0])
        store.close()


def test_the_finished_model_is_told_with_its_files_and_where_it_answers(tmp_path: Path) -> None:
    store, _ = stored_runs.finished_run(tmp_path / "home")
    made = store.artifacts("r1", "quantized")[-1]
    [gone] = asked(store, "trial").facts
    assert gone["model"] == "quantized" and gone["files_are_there"] is False and gone["made_by"] == "quantize"
    moved(store, made.id, tmp_path / "home" / "runs" / "q")
    [there] = asked(store, "trial").facts
    assert there["files_are_there"] is True and there["served"] is False and "/ask" in str(there["ask_with"])
    (tmp_path / "home" / "servers").mkdir()
    (tmp_path / "home" / "servers" / "1-x.json").write_text(json.dumps(server_record(made.id)))
    [served] = asked(store, "trial").facts
    assert served["url"] == "http://127.0.0.1:8411/v1" and served["answers"] is False
    assert str(served["key_file"]).endswith("1-x.key")


def test_an_example_to_ask_is_no_blind_case_and_for_the_screen_alone(tmp_path: Path) -> None:
    store, _ = stored_runs.finished_run(tmp_path / "home")
    found = asked(store, "trial")
    assert "My parcel 48000" in str(found.texts) and "parcel" not in found.for_model()
    path = store.artifacts("r1", "suite")[-1].path
    suite = Suite.from_json(path.read_text())
    blind = {"split": "blind"}
    cases = [c.model_copy(update={"metadata": blind} if c.case_id != "target-003" else {}) for c in suite.cases]
    path.write_text(Suite(cases=tuple(cases)).to_json())
    with store.write() as conn:  # what its record does not say its file does
        conn.execute("UPDATE artifacts SET meta = json_remove(meta, ?) WHERE kind = 'suite'", (f"$.{META}",))
    assert str(asked(store, "trial").texts[0]["for_example"]).startswith("cant log in")


def test_without_a_model_of_its_own_a_run_has_its_base_to_be_asked(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no model was made yet"):
        asked(Store(tmp_path / "empty"), "trial")
    store, _ = stored_runs.baseline_run(tmp_path / "home")
    [fact] = asked(store, "trial").facts
    assert fact["model"] == "base" and "path" not in fact
