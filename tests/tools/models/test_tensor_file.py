"""Safetensors written tensor by tensor are those of the library, and never half there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.fixtures.tables import table
from tunesmith.memory.errors import BadInput, StepFailed
from tunesmith.tools.models.full_precision import assert_full_precision
from tunesmith.tools.models.tensor_file import TensorFileWriter, TensorSpec, read_header, weight_files

SPECS = [("a", TensorSpec("F32", (2, 3))), ("b", TensorSpec("BF16", (5,)))]


def test_the_library_reads_what_was_written(tmp_path: Path) -> None:
    numpy = pytest.importorskip("numpy")
    safetensors = pytest.importorskip("safetensors.numpy")
    values = numpy.arange(6, dtype="<f4").reshape(2, 3)
    path = tmp_path / "x.safetensors"
    with TensorFileWriter(path, SPECS[:1]) as writer:
        writer.write("a", values.tobytes())
    assert (safetensors.load_file(path)["a"] == values).all()
    assert read_header(path) == dict(SPECS[:1])


def test_a_writer_that_stops_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    with pytest.raises(RuntimeError, match="cut"), TensorFileWriter(path, SPECS) as writer:
        writer.write("a", b"\0" * 24)
        raise RuntimeError("cut")
    with pytest.raises(StepFailed, match="only 1 of 2"), TensorFileWriter(path, SPECS) as writer:
        writer.write("a", b"\0" * 24)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "size"), [("b", 24), ("a", 23)])
def test_a_wrong_tensor_is_refused(tmp_path: Path, name: str, size: int) -> None:
    refused = pytest.raises(StepFailed, match="expected a of 24 bytes")
    with refused, TensorFileWriter(tmp_path / "x.safetensors", SPECS) as writer:
        writer.write(name, b"\0" * size)


def test_a_file_cut_short_is_recognised(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    with TensorFileWriter(path, SPECS[:1]) as writer:
        writer.write("a", b"\0" * 24)
    assert weight_files(tmp_path) == [path]
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BadInput, match=r"cut short: \d+ of \d+ bytes"):
        read_header(path)


@table("name", ["../elsewhere.safetensors", "/tmp/x.safetensors", "sub/x.safetensors", "x.bin", 7])
def test_no_reader_follows_an_index_out_of_its_folder(tmp_path: Path, name: object) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"w": name}}))
    with pytest.raises(BadInput, match="beside it"):
        weight_files(tmp_path)


def test_a_proof_is_not_read_from_a_header_without_end(tmp_path: Path) -> None:
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.write((4 << 30).to_bytes(8, "little"))
        file.truncate(5 << 30)
    with pytest.raises(BadInput, match="not a whole safetensors file"):
        assert_full_precision(tmp_path, ("lm_head",))
