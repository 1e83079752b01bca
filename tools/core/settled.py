"""Objects that stay for a whole piece of work, kept out of the garbage collector's way.

torch, transformers and a model are a million objects that nothing ever frees: one full collection among them takes 0.4
s on a CPU, and those that come while they are imported take a third of the import.
"""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module

TOKENIZERS = ("transformers.models.auto.tokenization_auto",)
"""What a tokenizer needs; it does without torch."""
MODELS = ("torch", *TOKENIZERS, "transformers.models.auto.modeling_auto", "transformers.modeling_utils")
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


@contextmanager
def uncollected() -> Iterator[None]:
    """No collection inside, as almost all that is made there stays; none looks at it afterwards."""
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()


def load_modules(names: Iterable[str]) -> None:
    """Import modules without a collection in between."""
    with uncollected():
        for name in names:
            import_module(name)
