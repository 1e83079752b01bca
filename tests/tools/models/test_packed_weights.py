"""4-bit weights by our own arithmetic are those of the library, and come back as the audit reads them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tunesmith.tools.export.round_to_nearest import quantization
from tunesmith.tools.models.packed_weights import packed


def test_a_group_of_zeros_has_a_scale_above_zero_and_codes_of_zero() -> None:
    codes, scales = packed(np.zeros((2, 64), "<f4"), 32, "BF16")
    assert (scales.astype("<u4") << 16).view("<f4").min() > 0
    assert set(codes.view("u1").ravel().tolist()) == {0x88}


@pytest.mark.lab
@pytest.mark.parametrize("kind", ["BF16", "F32"])
@pytest.mark.parametrize("group", [0, 32])
def test_rounding_is_llm_compressors(kind: str, group: int) -> None:
    import torch
    from compressed_tensors.compressors.pack_quantized.helpers import unpack_from_int32
    from compressed_tensors.quantization import QuantizationConfig
    from llmcompressor.entrypoints.model_free.converter import ModelFreePtqConverter

    torch.manual_seed(3)
    weight = torch.randn(48, 128).to(torch.bfloat16 if kind == "BF16" else torch.float32)
    described: dict[str, Any] = dict(quantization(group, ["lm_head"]))
    theirs = ModelFreePtqConverter(QuantizationConfig.model_validate(described)).process({"layer.weight": weight})
    codes, scales = packed(weight.float().numpy().copy(), group, kind)
    words = theirs["layer.weight_scale"].view(torch.int16 if kind == "BF16" else torch.float32).numpy()
    assert np.array_equal(scales.view(words.dtype), words), "scales bit for bit"
    ours = unpack_from_int32(torch.tensor(codes.copy()), 4, weight.shape).int()
    off = (ours - unpack_from_int32(theirs["layer.weight_packed"], 4, weight.shape).int()).abs()
    assert off.max() <= 1 and (off > 0).float().mean() < (0.02 if kind == "BF16" else 1e-3), "ties alone"
