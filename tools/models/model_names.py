"""The shape that a model's name or size stands for, for arithmetic before anything is downloaded.

A published model goes by its own config; a name that is not known here goes by the size in it (`deepseek-r1-7b`), and a
size alone (`a 7b`) by the usual model of that size, which is said.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache

from tunesmith.memory.errors import BadInput
from tunesmith.memory.json_values import as_int
from tunesmith.tools.models.families import KNOWN_MODELS, find_known, known_of
from tunesmith.tools.models.families import NamedModel as NamedModel
from tunesmith.tools.models.shape import ModelShape

_USUAL = (
    "SmolLM2-135M-Instruct", "SmolLM2-360M-Instruct", "Qwen2.5-0.5B-Instruct", "Llama-3.2-1B-Instruct",
    "Qwen2.5-1.5B-Instruct", "gemma-2-2b-it", "Qwen2.5-3B-Instruct", "Qwen3-4B", "Qwen2.5-7B-Instruct",
    "Llama-3.1-8B-Instruct", "gemma-2-9b-it", "Mistral-Nemo-Instruct-2407", "Qwen2.5-14B-Instruct",
    "Mistral-Small-24B-Instruct-2501", "gemma-2-27b-it", "Qwen2.5-32B-Instruct", "Llama-3.3-70B-Instruct",
    "Qwen2.5-72B-Instruct", "Qwen3-235B-A22B",
)  # fmt: skip
_LARGEST = "Llama-3.1-405B-Instruct"
"""Of its size too much is published to be counted by another, though it is nobody's usual model."""
_SIZE = re.compile(r"(?<![a-z\d.])a?(\d+(?:\.\d+)?)\s?([bm])(?![a-z])")
_IDS = {model.name.lower() for model in KNOWN_MODELS}
_LEAST, _MOST = 1e6, 2e13
"""Parameters that a language model may have: less or more is a slip, not a size."""
_SCALED_FROM = 1.12
"""A size this much off the nearest usual model's is counted with more or fewer layers of it: names round, by up
to 9 % (Qwen2.5-7B has 7.6 billion)."""


class SeveralSizes(BadInput):
    """A family was named, and no size of it."""

    def __init__(self, name: str, models: Sequence[NamedModel]) -> None:
        sizes = ", ".join(f"{model.name} ({model.parameters / 1e9:.2g}B)" for model in models)
        super().__init__(f"which {name}? There are {sizes}; name one of them, such as {models[0].name}")


def named_model(name: str) -> NamedModel | None:
    """The model that a name or a size means; None where neither is known. Raises SeveralSizes for a family's name."""
    lowered = name.strip().lower()
    if size := re.fullmatch(_SIZE.pattern, lowered):
        return of_size(_parameters(size)) if _is_size(size) else None
    plain = _plain(lowered)
    if not _SIZE.search(plain) and lowered not in _IDS:
        fitting = [NamedModel(_short(model.name), model.config) for model in known_of(plain)]
        # Of those of one size the shortest name comes last, and stays.
        of_size_ = {model.parameters: model for model in sorted(fitting, key=lambda one: len(one.name), reverse=True)}
        if len(of_size_) > 1:
            raise SeveralSizes(name.strip(), [of_size_[parameters] for parameters in sorted(of_size_)])
    if known := find_known(plain):
        return NamedModel(_short(known.name), known.config)
    size = _SIZE.search(lowered)
    return of_size(_parameters(size), name=name.strip()) if size and _is_size(size) else None


def hub_name(asked: str) -> str:
    """OWNER/NAME of the published model that a spoken name means, `qwen3 4b`; empty where none is known by it, or it is
    a size alone. Raises SeveralSizes for a family's name."""
    lowered = asked.strip().lower()
    named = None if _SIZE.fullmatch(lowered) else named_model(lowered)
    known = find_known(_plain(lowered)) if named and not named.approximate else None
    return known.name if known else ""


def is_listed(name: str) -> bool:
    """Whether a name alone says a model: the id of a published one that is known here, its spoken name, its family's,
    or a size."""
    lowered = name.strip().lower()
    if "/" in lowered:
        return lowered in _IDS
    try:
        return bool(_SIZE.fullmatch(lowered) or hub_name(lowered))
    except SeveralSizes:
        return True


def _plain(lowered: str) -> str:
    """A model's name without its publisher and without what says how it was trained."""
    return re.sub(r"[-_ ](?:instruct|chat|base|it|hf|thinking|2507|v\d+(?:\.\d+)?)\b", "", lowered.rpartition("/")[2])


def shape_of(config: Mapping[str, object], parameters: int) -> ModelShape:
    """The sizes of a model; where its config does not say them, those of the usual model of so many parameters."""
    try:
        return ModelShape.of(config)
    except (KeyError, TypeError, ValueError, ZeroDivisionError):  # a config may leave anything out
        return of_size(parameters).shape


def _parameters(size: re.Match[str]) -> float:
    return float(size[1]) * (1e9 if size[2] == "b" else 1e6)


def _is_size(size: re.Match[str]) -> bool:
    return _LEAST <= _parameters(size) <= _MOST


def _short(name: str) -> str:
    return re.sub(r"-(?:Instruct|it|instruct)\b", "", name.rpartition("/")[2])


@cache
def usual_models() -> tuple[NamedModel, ...]:
    """The usual model of each size, the smallest first."""
    by_name = {model.name.rpartition("/")[2]: model for model in KNOWN_MODELS}
    return tuple(NamedModel(_short(name), by_name[name].config) for name in _USUAL)


def of_size(parameters: float, *, name: str = "") -> NamedModel:
    """The usual model of about so many parameters; far from any, the nearest dense one with other layers."""
    largest = [model for model in KNOWN_MODELS if model.name.rpartition("/")[2] == _LARGEST]
    models = (*usual_models(), *largest)
    nearest = min(models, key=lambda model: abs(model.parameters - parameters))
    scaled = not 1 / _SCALED_FROM < parameters / nearest.parameters < _SCALED_FROM
    if scaled:  # nothing says that a name of that size is a mixture
        nearest = min((m for m in models if not m.shape.experts), key=lambda model: abs(model.parameters - parameters))
    config = dict(nearest.config)
    if scaled:
        layers = as_int(config["num_hidden_layers"])
        config["num_hidden_layers"] = max(1, round(layers * parameters / nearest.parameters))
    size = f"{parameters / 1e9:g}B" if parameters >= 1e9 else f"{parameters / 1e6:g}M"
    return NamedModel(name or size, config, approximate=True)
