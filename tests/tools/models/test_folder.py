"""What may be loaded, decided from files alone."""

from __future__ import annotations

import json
import os
import struct
from contextlib import nullcontext
from pathlib import Path

import pytest

from tests.fixtures.tables import table
from tunesmith.memory.errors import BadInput
from tunesmith.tools.models.folder import check_hub_revision, check_model_folder, refuse_other_work
from tunesmith.tools.models.model_files import wanted_files
from tunesmith.tools.models.tensor_file import TensorFileWriter, TensorSpec


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The least that is a chat model folder."""
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", "num_experts": None}))
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>"}))
    (tmp_path / "chat_template.jinja").write_text("{{ messages }}")
    with TensorFileWriter(tmp_path / "model.safetensors", [("w", TensorSpec("BF16", (3, 4)))]) as writer:
        writer.write("w", b"\0" * 24)
    return tmp_path


def test_a_whole_folder_is_described(folder: Path) -> None:
    facts = check_model_folder(folder)
    assert facts.parameters == 12


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "generation_config.json"])
def test_code_that_comes_along_is_refused_wherever_it_is_named(folder: Path, name: str) -> None:
    path = folder / name
    content = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(content | {"nested": {"auto_map": {"AutoModel": "evil.Model"}}}))
    with pytest.raises(BadInput, match="auto_map"):
        check_model_folder(folder)


def test_pickles_are_refused_by_name(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(BadInput, match=r"pickle \(pytorch_model\.bin\)"):
        check_model_folder(folder)


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ("config.json", "config.json"),
        ("tokenizer.json", "tokenizer"),
        ("chat_template.jinja", "chat template"),
        ("model.safetensors", "safetensors"),
    ],
)
def test_what_is_missing_is_named_in_one_line(folder: Path, missing: str, said: str) -> None:
    (folder / missing).unlink()
    with pytest.raises(BadInput, match=said) as caught:
        check_model_folder(folder)
    assert "\n" not in str(caught.value)


def test_a_template_inside_the_tokenizer_config_counts(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ messages }}"}))
    check_model_folder(folder)


def test_a_missing_shard_is_named(folder: Path) -> None:
    index = {"weight_map": {"w": "model.safetensors", "v": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(BadInput, match="model-00002-of-00002"):
        check_model_folder(folder)


def test_weights_cut_short_are_refused(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:6])
    with pytest.raises(BadInput, match="not a whole safetensors file"):
        check_model_folder(folder)


@pytest.mark.parametrize(
    "header",
    [b"no json at all", b'{"w": {}}', b'{"w": 3}', b'["w"]', b'{"w": {"shape": ["x"]}}', b"\xff\xfe", b"[" * 100_000],
    ids=lambda header: repr(header[:20]),
)
def test_a_header_that_describes_no_tensor_is_refused(folder: Path, header: bytes) -> None:
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(BadInput, match="no safetensors header"):
        check_model_folder(folder)


@pytest.mark.parametrize("name", ["config.json", "generation_config.json"])
def test_json_nested_without_end_is_refused(folder: Path, name: str) -> None:
    (folder / name).write_text("[" * 100_000)
    with pytest.raises(BadInput, match="not readable JSON"):
        check_model_folder(folder)


def test_code_is_found_however_deep_it_is_named(folder: Path) -> None:
    text = '{"auto_map": {}}'
    for _ in range(900):
        text = f"[{text}]"
    (folder / "generation_config.json").write_text(f'{{"deep": {text}}}')
    with pytest.raises(BadInput, match="auto_map"):
        check_model_folder(folder)


def test_no_folder_and_no_model_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="not a folder"):
        check_model_folder(tmp_path / "nowhere")
    with pytest.raises(BadInput, match="not a model folder"):
        check_model_folder(tmp_path)


@table("revision", [None, "", "main", "v1.0", "abc123", "G" * 40])
def test_only_a_full_commit_pins_a_hub_model(revision: str | None) -> None:
    with pytest.raises(BadInput, match="40 hex digits"):
        check_hub_revision(revision, "org/model")
    assert check_hub_revision("0f" * 20, "org/model") == "0f" * 20


@pytest.mark.parametrize(
    "name", ["../evil/model.safetensors", "/tmp/evil.safetensors", "sub/model.safetensors", "..", "", 7, None, ["x"]]
)
def test_an_index_names_only_files_beside_it(folder: Path, name: object) -> None:
    (folder.parent / "evil").mkdir(exist_ok=True)
    (folder.parent / "evil" / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"w": name}}))
    with pytest.raises(BadInput, match="beside it"):
        check_model_folder(folder)


@pytest.mark.parametrize("weight_map", [[], "model.safetensors", 7])
def test_an_index_without_a_map_is_refused(folder: Path, weight_map: object) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(BadInput, match="weight_map"):
        check_model_folder(folder)


def test_the_shards_of_a_public_model_pass(folder: Path) -> None:
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    for name in names:
        (folder / name).write_bytes((folder / "model.safetensors").read_bytes())
    (folder / "model.safetensors").unlink()
    index = {"metadata": {}, "weight_map": {"a": names[0], "b": names[1]}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert check_model_folder(folder).parameters == 24


def test_an_adapter_that_would_be_loaded_on_top_is_refused(folder: Path) -> None:
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    with pytest.raises(BadInput, match=r"on top .* merge it first"):
        check_model_folder(folder)


def test_a_header_of_four_gigabytes_is_not_read(folder: Path) -> None:
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", 4 << 30))
        file.truncate(5 << 30)
    with pytest.raises(BadInput, match="not a whole safetensors file"):
        check_model_folder(folder)


@pytest.mark.parametrize("name", ["config.json", "extra.json", "model.safetensors", "more.safetensors"])
@pytest.mark.timeout(300)
def test_a_named_pipe_is_refused_and_not_waited_for(folder: Path, name: str) -> None:
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    with pytest.raises(BadInput):
        check_model_folder(folder)


def test_a_json_file_that_would_fill_the_memory_is_refused(folder: Path) -> None:
    with (folder / "extra.json").open("wb") as file:
        file.truncate(3 << 30)
    with pytest.raises(BadInput, match="64 MiB"):
        check_model_folder(folder)


@table(
    ("names", "told"),
    [
        (["adapter_config.json"], "holds an adapter and no model"),
        (["model-Q4_K_M.gguf"], "only as a GGUF"),
        (["checkpoint-9/config.json", "checkpoint-8/config.json"], "such as {}/checkpoint-8"),
        (["snapshots/0f0f/config.json", "refs/main"], "such as {}/snapshots/0f0f"),
    ],
)
def test_what_is_given_in_a_model_folders_place_is_said_with_what_to_give(
    names: list[str], told: str, tmp_path: Path
) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text("{}")
    with pytest.raises(BadInput, match=told.format(tmp_path)):
        check_model_folder(tmp_path)


def test_weights_that_nothing_loads_are_refused_and_those_that_lie_there_twice_count_once(folder: Path) -> None:
    once = check_model_folder(folder)
    (folder / "consolidated.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    assert check_model_folder(folder)[1:] == once[1:]
    assert "consolidated.safetensors" not in wanted_files(folder)
    (folder / "consolidated.safetensors").unlink()
    (folder / "model.safetensors").rename(folder / "mine.safetensors")
    with pytest.raises(BadInput, match=r"name it model\.safetensors"):
        check_model_folder(folder)


def test_a_pointer_in_the_place_of_weights_is_named(folder: Path) -> None:
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(BadInput, match="git lfs pull"):
        check_model_folder(folder)


@table(
    ("config", "told"),
    [
        ({"architectures": ["LlamaForSequenceClassification"]}, "does not go on with a text"),
        ({"architectures": ["LlamaModel"]}, "does not go on with a text"),
        ({"architectures": ["T5ForConditionalGeneration"], "is_encoder_decoder": True}, "does not go on with a text"),
        ({"architectures": ["GPT2LMHeadModel"]}, ""),
        ({"architectures": ["Gemma3ForConditionalGeneration"], "is_encoder_decoder": False}, ""),
        ({"architectures": []}, ""),
        ({"hidden_size": -64, "num_attention_heads": 1}, "hidden_size is -64"),
        ({"hidden_size": "wide", "num_attention_heads": 1}, ""),
    ],
)
def test_what_no_base_can_say_is_refused_by_its_config_alone(config: dict[str, object], told: str) -> None:
    with pytest.raises(BadInput, match=told) if told else nullcontext():
        refuse_other_work(config, "config.json")
