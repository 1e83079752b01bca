"""What a base that is loaded at 4 bits on a CPU leaves of its 16-bit file in memory."""

from __future__ import annotations

import gc
import shutil
from pathlib import Path

import pytest

from tunesmith.tools.training.model import load_base

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="only Linux tells what a process has mapped"),
]


def mapped(file: Path) -> bool:
    return str(file.resolve()) in Path("/proc/self/maps").read_text()


def test_nothing_of_the_16_bit_file_stays_mapped(tiny_llama: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_llama, tmp_path / "own")  # another test's model may still lie in the shared one
    [file] = folder.glob("*.safetensors")
    whole = load_base(folder, precision="bf16", load_in_4bit=False)
    assert mapped(file), "at 16 bits the weights lie in the file"
    norms = {name: value.detach().clone() for name, value in whole.named_parameters() if "norm" in name}
    del whole
    gc.collect()  # a model is in circles
    model = load_base(folder, precision="bf16", load_in_4bit=True)
    assert not mapped(file)
    assert norms and all((model.get_parameter(name) == value).all() for name, value in norms.items())
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight, "what is tied stays tied"
