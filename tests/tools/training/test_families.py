"""Every open family through the whole lab chain, on a tiny model of its own architecture, tokenizer and template.

What a family cannot do is refused by the product's own sentence, which is asked for too.
"""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.families import FAMILIES, Family, write_family
from tests.fixtures.lab_model import write_rows
from tests.fixtures.wrong_merges import OF_EXPERTS, WRONG, merged_wrongly
from tunesmith.memory.errors import BadInput, StepFailed
from tunesmith.tools.data.rows import read_rows
from tunesmith.tools.export import logit_proof_job
from tunesmith.tools.export.audit_merged import audit_adapter, audit_merged
from tunesmith.tools.export.audit_quantized import audit_quantized
from tunesmith.tools.export.logit_proof_job import compare_logits
from tunesmith.tools.export.merge_job import merge_adapter
from tunesmith.tools.export.quantize import QuantizeRequest
from tunesmith.tools.export.quantize_job import chosen_group_size, quantize_model
from tunesmith.tools.models.base_job import check_template, materialize_folder
from tunesmith.tools.models.families import KNOWN_MODELS
from tunesmith.tools.models.folder import check_model_folder
from tunesmith.tools.models.full_precision import Proof
from tunesmith.tools.models.shape import ModelShape
from tunesmith.tools.release.gguf_file import read_back, write_gguf
from tunesmith.tools.release.release_job import compare_gguf, spoken_texts
from tunesmith.tools.training.four_bit import is_router
from tunesmith.tools.training.lora_settings import LoraSettings
from tunesmith.tools.training.rows import IGNORED, tokenize_rows
from tunesmith.tools.training.train_job import ToTrain, Trained, train_lora

pytestmark = pytest.mark.lab

LAYERS, RANK, TOKENS = 2, 4, 256
SETTINGS = LoraSettings(lora_rank=RANK, lora_alpha=8, learning_rate=5e-3, max_steps=6, batch_size=4, save_steps=100)
FOUR_BITS = replace(SETTINGS, load_in_4bit=True, activation_checkpointing="on", max_steps=2)


def quiet(*_: Any) -> None:
    """No progress."""


class Lab:
    """One family's way: each hop is gone once, when the first test asks for what it makes."""

    def __init__(self, family: Family, folder: Path, rows: Path) -> None:
        self.family, self.folder, self.rows = family, folder, rows
        self.losses: list[float] = []
        self.said: list[str] = []

    @cached_property
    def base(self) -> Path:
        """As the base stage takes it from a folder."""
        materialize_folder(write_family(self.folder / "origin", self.family), self.folder / "base", quiet)
        return self.folder / "base"

    @property
    def config(self) -> dict[str, Any]:
        config: dict[str, Any] = json.loads((self.base / "config.json").read_text())
        return config

    def _train(self, name: str, settings: LoraSettings, metric: Callable[[str, float, float], None]) -> Trained:
        checkpoints = self.folder / f"{name}-checkpoints"
        out = self.folder / name
        return train_lora(
            ToTrain(self.base, self.rows, out, settings, checkpoints, metric=metric, log=self.said.append)
        )

    @cached_property
    def trained(self) -> Trained:
        def metric(name: str, value: float, step: float) -> None:
            self.losses += [value] if name == "behaviour_loss" else []

        return self._train("adapter", SETTINGS, metric)

    @cached_property
    def adapter(self) -> Path:
        assert self.trained
        return self.folder / "adapter"

    @cached_property
    def trained_at_four_bits(self) -> Trained:
        return self._train("nf4", FOUR_BITS, quiet)

    @cached_property
    def merged(self) -> Path:
        merge_adapter(self.base, self.adapter, self.folder / "merged", quiet)
        return self.folder / "merged"

    @cached_property
    def proof(self) -> Proof:
        group = chosen_group_size(self.config, "W4A16", 0)
        request = QuantizeRequest(
            scheme="W4A16", group_size=group, calibration_samples=8, max_seq_len_tokens=64, seed=1, keep=()
        )
        return quantize_model(self.merged, self.rows, self.folder / "quantized", request, quiet)

    @cached_property
    def quantized(self) -> Path:
        assert self.proof
        return self.folder / "quantized"


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Of matrices as small as these threads would compute for less time than they wait for each other."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module", params=FAMILIES)
def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    folder = tmp_path_factory.mktemp(request.param)
    return Lab(FAMILIES[request.param], folder, write_rows(folder / "train.jsonl", 24))


def load(folder: Path, dtype: str = "float32") -> Any:
    """As transformers computes it in its plainest way."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="eager")


def logits(model: Any) -> Any:
    import torch

    with torch.no_grad():
        return model.eval()(torch.arange(3, 60)[None]).logits.float()


def far(one: Any, other: Any) -> float:
    """The distance of two sets of logits, relative to the second."""
    return float((one - other).norm() / other.norm())


def test_the_shape_that_plans_are_priced_by_is_the_models(lab: Lab) -> None:
    shape = ModelShape.of(lab.config)
    assert shape.parameters == sum(parameter.numel() for parameter in load(lab.base).parameters())
    assert shape.parameters == check_model_folder(lab.base).parameters
    assert shape.lora_parameters(RANK) == lab.trained.trainable_parameters
    assert shape.lora_parameters(RANK, experts=False) == lab.trained_at_four_bits.trainable_parameters
    assert lab.family.kind in {model.config["model_type"] for model in KNOWN_MODELS}


def test_the_token_that_ends_its_turn_is_known_labelled_and_the_last(lab: Lab) -> None:
    from transformers import AutoTokenizer

    assert check_template(lab.base)[1] == lab.family.turn_end
    tokenizer, rows = AutoTokenizer.from_pretrained(lab.base), read_rows(lab.rows)
    for row, tokens in zip(rows, tokenize_rows(tokenizer, rows, TOKENS), strict=True):
        trained = [label for label in tokens.labels if label != IGNORED]
        assert tokenizer.decode(trained).strip() == row.completion[0]["content"] + lab.family.turn_end
        prompt = tokenizer.apply_chat_template(row.prompt, tokenize=False, add_generation_prompt=True)
        assert tokenizer.decode(tokens.input_ids[: -len(trained)]) == prompt


def test_what_training_computes_has_the_loss_and_the_gradients_of_the_plain_model(lab: Lab) -> None:
    """Fused LoRA, rows behind each other and the head in chunks, against transformers and peft row by row."""
    import torch
    from peft import get_peft_model
    from transformers import AutoTokenizer

    from tunesmith.tools.training.batch_loss import LossSettings, batch_loss
    from tunesmith.tools.training.fused_lora import use_fused_lora
    from tunesmith.tools.training.head_loss import find_head
    from tunesmith.tools.training.model import load_base, lora_config
    from tunesmith.tools.training.packing import keeps_sequences_apart

    rows = tokenize_rows(AutoTokenizer.from_pretrained(lab.base), read_rows(lab.rows), TOKENS)[:4]

    def adapted(base: Any) -> Any:
        torch.manual_seed(1)
        lora = lora_config(base, lab.config, LoraSettings(lora_rank=RANK, lora_alpha=8))
        lora.init_lora_weights = False
        return get_peft_model(base, lora).train()

    def gradients(model: Any, loss: Any) -> tuple[float, Any]:
        loss.backward()
        found = [parameter.grad.flatten() for parameter in model.parameters() if parameter.requires_grad]
        return loss.item(), torch.cat(found)

    plain = adapted(load(lab.base))
    losses = [
        plain(input_ids=torch.tensor([row.input_ids]), labels=torch.tensor([row.labels])).loss * row.trainable
        for row in rows
    ]
    loss, expected = gradients(plain, sum(losses))

    base = load_base(lab.base, precision="fp32", load_in_4bit=False)
    head, packed = find_head(base, lab.config), keeps_sequences_apart(base, lab.config)
    assert head is not None and packed is lab.family.packed
    fast = adapted(base)
    assert use_fused_lora(fast) == LAYERS * lab.family.projections
    settings = LossSettings(1.0, 1.0, head, packed)
    pairs = [(row.input_ids, row.labels) for row in rows]
    fast_loss, found = gradients(fast, batch_loss(fast, pairs, [False] * len(rows), settings).weighted)
    assert fast_loss == pytest.approx(loss, rel=1e-4)
    assert expected.norm() > 0 and (found - expected).norm() <= 1e-3 * expected.norm()


def test_training_moves_the_model_and_saves_what_peft_loads(lab: Lab) -> None:
    from peft import PeftModel

    assert lab.trained.steps == len(lab.losses) == 6 and all(math.isfinite(loss) for loss in lab.losses)
    fused = f"{LAYERS * lab.family.projections} fused layers"
    kept = "without padding" if lab.family.packed else "with padding"
    assert any(fused in line and line.endswith(kept) for line in lab.said)
    model = PeftModel.from_pretrained(load(lab.base), lab.adapter)
    assert far(logits(model), logits(load(lab.base))) > 0.01
    assert audit_adapter(lab.adapter, lab.base).faults == ()


def test_at_four_bits_it_trains_and_its_router_does_not(lab: Lab) -> None:
    from peft import PeftModel

    held = lab.trained_at_four_bits.bytes_per_parameter
    assert lab.trained_at_four_bits.steps == 2 and held["dense"] < 1.0
    assert held.get("experts", 0.0) < 0.6 and held.get("router", 2.0) == 2.0
    assert ("experts" in held, "router" in held) == (lab.family.mixture, lab.family.mixture)
    model = PeftModel.from_pretrained(load(lab.base), lab.folder / "nf4")
    assert far(logits(model), logits(load(lab.base))) > 0


def test_the_merged_model_is_base_and_adapter(lab: Lab) -> None:
    from peft import PeftModel

    proof = compare_logits(lab.base, lab.adapter, lab.merged, quiet, rows=read_rows(lab.rows)[:3])
    assert proof["argmax_agreement"] > 0.9 and proof["update_error"] < 0.2
    assert 0.95 < proof["update_share"] < 1.05 and proof["weight_error"] < 0.02
    audit = audit_merged(lab.merged, lab.base, lab.adapter)
    assert audit.faults == () and audit.updated + audit.unchanged == audit.tensors
    adapted = logits(PeftModel.from_pretrained(load(lab.base), lab.adapter))
    assert far(logits(load(lab.merged)), adapted) < 0.2 * far(logits(load(lab.base)), adapted)


def test_a_right_merge_passes_its_proof_and_each_wrong_one_fails_it(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gentle as the adapter may be, in fp32 and in bf16, on bases of both."""
    import torch
    from transformers import AutoModelForCausalLM

    rows, wide, gentle = read_rows(lab.rows)[:3], tmp_path / "wide", tmp_path / "gentle"
    shutil.copytree(lab.base, wide)
    AutoModelForCausalLM.from_pretrained(lab.base, dtype=torch.float32).save_pretrained(wide)
    shutil.copytree(lab.adapter, gentle)
    config = json.loads((gentle / "adapter_config.json").read_text())
    (gentle / "adapter_config.json").write_text(json.dumps(config | {"lora_alpha": config["lora_alpha"] / 20}))
    cases = WRONG | (OF_EXPERTS if lab.family.mixture else {})
    wrong = {how: merged_wrongly(lab.base, lab.adapter, tmp_path / how, alter) for how, alter in cases.items()}
    right = [(lab.base, lab.adapter, lab.merged)]
    for base, adapter in ((lab.base, gentle), (wide, lab.adapter), (wide, gentle)):
        out = tmp_path / f"{base.name}-{adapter.name}"
        merge_adapter(base, adapter, out, quiet)
        right.append((base, adapter, out))
    for most_parameters, layers in ((logit_proof_job.FP32_BELOW_PARAMETERS, LAYERS), (1, 1)):
        monkeypatch.setattr(logit_proof_job, "FP32_BELOW_PARAMETERS", most_parameters)
        monkeypatch.setattr(logit_proof_job, "_MOST_LAYERS", layers)
        for base, adapter, merged in right:
            assert compare_logits(base, adapter, merged, quiet, rows=rows)["weight_error"] < 0.2
        for how, merged in wrong.items():
            with pytest.raises(StepFailed, match=r"the merged model\.layers\.\d.* is off from base \+ adapter by"):
                compare_logits(lab.base, lab.adapter, merged, quiet, rows=rows)
                pytest.fail(how)


def test_the_quantized_model_passes_its_audit_and_loads_near_the_merged_one(lab: Lab) -> None:
    experts = 4 * 3 if lab.family.mixture else 0
    assert lab.proof.quantized_layers == LAYERS * (lab.family.projections + experts)
    routers = [name for name in lab.proof.full_precision if is_router(name)]
    assert len(routers) == (LAYERS if lab.family.mixture else 0)
    audit = audit_quantized(lab.quantized, lab.merged, group_size=chosen_group_size(lab.config, "W4A16", 0))
    assert audit.faults == () and audit.weight_error is not None and audit.weight_error < 0.3
    assert far(logits(load(lab.quantized, "auto")), logits(load(lab.merged))) < 0.6, "another model is off by 1.4"


def test_it_is_written_as_a_gguf_or_refused_by_name(lab: Lab) -> None:
    file = lab.folder / "model.gguf"
    if lab.family.gguf:
        with pytest.raises(BadInput, match=re.escape(lab.family.gguf)):
            write_gguf(lab.merged, file, "BF16", quiet, name="m", adds_bos=False)
        assert not file.exists()
        return
    write_gguf(lab.merged, file, "BF16", quiet, name="m", adds_bos=False)
    assert read_back(lab.merged, file, "BF16", quiet, texts=spoken_texts()).largest_error == 0
    assert compare_gguf(lab.merged, file, "BF16", quiet) == (1.0, 0.0)


def test_a_cap_of_attentions_scores_is_computed_where_the_model_is_trained_and_proven(
    tmp_path: Path, rows_file: Path
) -> None:
    """transformers' own choice of attention leaves Gemma 2's out, without a word."""
    import torch
    from transformers import AutoModelForCausalLM

    from tunesmith.tools.export.offloaded_model import offloaded_model
    from tunesmith.tools.training.model import load_base

    base = write_family(tmp_path / "base", FAMILIES["gemma2"])
    right = logits(load(base))
    without = logits(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, attn_implementation="sdpa"))
    assert far(without, right) > 1e-3, "the cap is felt"
    assert far(logits(load_base(base, precision="fp32", load_in_4bit=False)), right) < 1e-5
    with offloaded_model(base, torch.float32, tmp_path) as offloaded:
        assert far(logits(offloaded), right) < 1e-5
