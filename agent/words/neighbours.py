"""The examples that a sentence is nearest to, and what they say beside the head.

The softmax layer draws one border for each label; the sentences of a label often lie in several places. A share of the
examples around a sentence corrects that, as in kNN language models (Khandelwal et al. 2020, arXiv:1911.00172). They are
kept in few numbers each, so that they fit into head.npz; those tell kinds apart, and the others wordings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

AXES = 64
"""Of the embedding's 384, in a megabyte: see below."""
_NEAR = 0.04
"""Of cosine: an example that is so much farther counts 1/e."""
_SHARE = 0.3
"""Of the neighbours, as an exponent; the head has the rest. From 0.2 to 0.4, and with 48 to 80 axes, it is the same
within a percent."""
_UNSEEN = 1e-5
"""The least share of a label that has no neighbour."""


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Every example's place, along the directions in which the embeddings differ most."""

    axes: Floats
    """AXES × the embedding's width."""
    origin: Floats
    """Where the mean of the embeddings lies along them."""
    places: Floats
    """Examples × AXES, each of length 1."""
    labels: NDArray[np.int64]
    """The number of each example's label."""

    @classmethod
    def stored(cls, arrays: Mapping[str, NDArray[np.generic]], labels: NDArray[np.int64]) -> Neighbours:
        """Of arrays as head.npz holds them, each in any type of number; places are whole numbers up to 127."""
        import numpy as np

        axes, origin, places = (arrays[name].astype(np.float32) for name in ("axes", "origin", "places"))
        return cls(axes, origin, _unit(places), labels)

    def similar(self, embedded: Floats) -> Floats:
        """Sentences × examples: the cosine between them."""
        return _unit(embedded @ self.axes.T - self.origin) @ self.places.T

    def beside(self, likely: Floats, embedded: Floats) -> Floats:
        """The head's probabilities, sentences × labels, with what the neighbours say."""
        import numpy as np

        weights = np.exp((self.similar(embedded) - 1) / _NEAR)
        summed = np.stack([np.bincount(self.labels, row, likely.shape[1]) for row in weights])
        near = summed / summed.sum(axis=1, keepdims=True)
        both = likely ** (1 - _SHARE) * (near + _UNSEEN) ** _SHARE
        mixed: Floats = (both / both.sum(axis=1, keepdims=True)).astype(np.float32)
        return mixed


def _unit(rows: Floats) -> Floats:
    import numpy as np

    unit: Floats = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)  # no division by zero
    return unit
