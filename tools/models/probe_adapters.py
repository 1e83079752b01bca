"""Adapters made from a trained one to try a server with: large in one kind of module, and zero everywhere else.

Files are read and written as bytes, without torch. A kind is where in a layer an adapter sits (`self_attn.q_proj`,
`mlp.experts`), the layers and the experts taken together.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from tunesmith.memory.errors import BadInput
from tunesmith.tools.models.tensor_file import ADAPTER_NAME, TensorFileWriter, TensorPlace, read_places
from tunesmith.tools.models.tensor_values import words_of

_SECOND = re.compile(r"\.lora_B\b|\.lora_embedding_B\b")
_LAYER = re.compile(r".*?\.layers\.\d+\.")
_LARGE = 0.2
"""Standard deviation of a large adapter's `lora_B`. `lora_A` hands on values of about half the size of its input's,
whatever the width, so at rank 16 and a scale of 2 the update is as large as the input: no rounding hides that."""
_SEED = 17
"""The same probe for the same adapter: what a server answered to it can be compared."""


def adapted_kinds(adapter: Path) -> tuple[str, ...]:
    """The kinds of module that an adapter has an update for. Raises BadInput where its weights cannot be read."""
    kinds = {_kind(name) for name in _places(adapter) if _SECOND.search(name)}
    if not kinds:
        raise BadInput(f"{adapter / ADAPTER_NAME} holds no lora_B: it adapts nothing")
    return tuple(sorted(kinds))


def write_probe(adapter: Path, target: Path, large: str = "") -> Path:
    """A copy whose update is large in modules of one kind, where one is named, and exactly zero in all others."""
    places = _places(adapter)
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for file in adapter.iterdir():
        if file.is_file() and file.suffix == ".json":
            shutil.copyfile(file, target / file.name)
    with TensorFileWriter(target / ADAPTER_NAME, [(name, place.spec) for name, place in places.items()]) as writer:
        for name, place in places.items():
            if not _SECOND.search(name):
                writer.write(name, place.read())
            else:
                writer.write(name, _drawn(name, place) if _kind(name) == large else bytes(place.end - place.start))
    return target


def _kind(name: str) -> str:
    inside = _LAYER.sub("", _SECOND.split(name)[0])
    return re.sub(r"\.\d+(?=\.|$)", "", inside).removesuffix(".base_layer")


def _places(adapter: Path) -> dict[str, TensorPlace]:
    path = adapter / ADAPTER_NAME
    if not path.is_file():
        raise BadInput(f"{adapter} has no {ADAPTER_NAME}; train again")
    return read_places(path)


def _drawn(name: str, place: TensorPlace) -> bytes:
    """Normal values, the same for a tensor's name wherever it is drawn, in the tensor's own type."""
    import numpy as np

    seed = [_SEED, *name.encode()]
    values = np.random.default_rng(seed).normal(0.0, _LARGE, place.spec.shape).astype("<f4")
    return words_of(values, place.spec.dtype).tobytes()
