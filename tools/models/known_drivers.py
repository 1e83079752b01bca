"""The models that may hold the conversation on a card: open-licensed instruct models whose template has tools.

By their makers' own cards; sizes are those of `families`. What one can do as a driver is not claimed: `doctor --driver`
examines it. The bundled 1.5B is what is left without any.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tunesmith.tools.models.families import config_of
from tunesmith.tools.models.memory_math import GPU_MARGIN_BYTES, ServerMemory, kv_bytes_per_token, server_memory
from tunesmith.tools.models.model_names import shape_of

CONTEXT_TOKENS = 16384
"""That a listed driver is served with: its tools alone take 6,000."""
SEQUENCES, _WHOLE = 8, 2
"""Requests at once: the turn's own and what is asked beside it; and how many of them at full length."""
_DRIVERS = (
    ("Qwen/Qwen3-4B-Instruct-2507", "Qwen/Qwen3-4B", "Apache-2.0", "hermes", "the smallest that plans over calls"),
    ("Qwen/Qwen2.5-7B-Instruct", "Qwen/Qwen2.5-7B-Instruct", "Apache-2.0", "hermes", "answers at once"),
    ("Qwen/Qwen3-8B", "Qwen/Qwen3-8B", "Apache-2.0", "hermes", "thinks before it calls"),
    ("Qwen/Qwen3-14B", "Qwen/Qwen3-14B", "Apache-2.0", "hermes", "thinks before it calls"),
    ("mistralai/Mistral-Small-24B-Instruct-2501", "mistralai/Mistral-Small-24B-Instruct-2501", "Apache-2.0", "mistral",
     "of another maker; answers at once"),
    ("Qwen/Qwen3-30B-A3B-Instruct-2507", "Qwen/Qwen3-30B-A3B", "Apache-2.0", "hermes",
     "a mixture: as quick as a 3B"),
)  # fmt: skip
"""Hub id, the listed model of its shape, licence, vLLM's name for how it writes calls, and why; the weakest first."""


@dataclass(frozen=True, slots=True)
class KnownDriver:
    """A model by what decides whether it fits."""

    model: str
    license: str
    tool_parser: str
    why: str
    config: Mapping[str, object]

    @property
    def title(self) -> str:
        """Its name without its maker's."""
        return self.model.rpartition("/")[2]

    @property
    def weight_bytes(self) -> int:
        """Of its 16-bit weights, which is also what is downloaded."""
        return 2 * shape_of(self.config, 0).parameters

    @property
    def vram_bytes(self) -> int:
        """That its server takes of a card, with what is kept free beside it."""
        return self.served.vram_bytes + GPU_MARGIN_BYTES

    @property
    def served(self) -> ServerMemory:
        """Peak memory of its server."""
        return server_memory(
            self.weight_bytes,
            kv_bytes_per_token=kv_bytes_per_token(self.config),
            context_tokens=CONTEXT_TOKENS,
            sequences=SEQUENCES,
            whole=_WHOLE,
        )


def known_drivers() -> tuple[KnownDriver, ...]:
    """All of them, the weakest first."""
    return tuple(
        KnownDriver(model, license_, parser, why, config_of(shape)) for model, shape, license_, parser, why in _DRIVERS
    )


def driver_of(name: str) -> KnownDriver | None:
    """The listed driver that a name, or the name of its folder, begins with; None for any other."""
    named = [one for one in known_drivers() if name.startswith((one.title, one.model.replace("/", "--")))]
    return max(named, key=lambda one: len(one.title), default=None)
