"""Objects that stay for a whole piece of work, kept out of the garbage collector's way.

torch, transformers and a model are a million objects that nothing ever frees: one full collection among them takes 0.4
s on a CPU, and those that come while they are imported take a third of the import.
"""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module

TOKENIZERS = ("torch", "transformers.models.auto.tokenization_auto")
"""What a tokenizer needs."""
MODELS = (*TOKENIZERS, "transformers.models.auto.modeling_auto", "transformers.modeling_utils")
"""What a model needs, beside the code of its kind."""


@contextmanager
def settled_objects() -> Iterator[None]:
    """What exists on entry is not looked through by the garbage collector inside; unreferenced, it is still freed."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def load_modules(names: Iterable[str]) -> None:
    """Import modules without a collection in between, and have none look at them afterwards."""
    gc.disable()
    try:
        for name in names:
            import_module(name)
        gc.freeze()
    finally:
        gc.enable()
