"""Objects that stay for a whole piece of work, kept out of the garbage collector's way.

torch, transformers and a model are a million objects that nothing ever frees: one full collection among them takes 0.4
s on a CPU, and those that come while they are imported take a third of the import.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module

TORCH = "torch"
TOKENIZERS = ("transformers.models.auto.tokenization_auto",)
"""What a tokenizer needs. It does without torch, which transformers loads where it finds it: 4 s of a core."""
MODELS = (TORCH, *TOKENIZERS, "transformers.models.auto.modeling_auto", "transformers.modeling_utils")
"""What a model needs, beside the code of its kind."""
FOUR_BITS = "bitsandbytes"
"""What 4-bit weights need. peft loads it where it finds it, which takes 2 s of a core."""
UNUSED = ("scipy", "networkx")
"""What transformers and torch load for losses of object detection and for compiling: a second of a core."""


@contextmanager
def settled_objects() -> Iterator[None]:
    """What exists on entry is not looked through by the garbage collector inside; unreferenced, it is still freed."""
    # What is garbage now would be frozen, too, and stay.
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
        gc.freeze()  # or the next collection walks through all of it
    finally:
        gc.enable()


def load_modules(names: Iterable[str], *, without: Iterable[str] = ()) -> None:
    """Import modules without a collection in between, as if the packages `without` were not installed.

    What they would have loaded of those is not looked for again; whoever imports one by name finds it.
    """
    absent = [name for name in without if name not in sys.modules]
    with uncollected():
        sys.modules.update(dict.fromkeys(absent))  # type: ignore[arg-type]  # None: Python's word for "not there"
        try:
            for name in names:
                import_module(name)
        finally:
            for name in absent:
                del sys.modules[name]  # who imports them by name is to find them
