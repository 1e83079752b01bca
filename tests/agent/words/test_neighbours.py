"""What stands around a sentence corrects what the head says of it, and no more than that."""

from __future__ import annotations

import numpy as np
import pytest

from tests.words.train import arrays_of, neighbours_of
from tunesmith.agent.words.neighbours import AXES, Neighbours

RANDOM = np.random.default_rng(3)
CENTRES = np.eye(3, 2 * AXES, dtype=np.float32)


def _around(label: int, count: int) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    return CENTRES[label] + RANDOM.normal(0, 0.05, (count, 2 * AXES)).astype(np.float32)


@pytest.fixture
def near() -> Neighbours:
    return neighbours_of(np.vstack([_around(label, 40) for label in (0, 1)]), np.repeat([0, 1], 40))


def test_where_the_head_is_undecided_the_neighbours_decide(near: Neighbours) -> None:
    undecided = np.full((2, 3), 1 / 3, np.float32)
    mixed = near.beside(undecided, np.vstack([_around(0, 1), _around(1, 1)]))
    assert mixed.argmax(axis=1).tolist() == [0, 1] and np.allclose(mixed.sum(axis=1), 1, atol=1e-5)
    assert (mixed[:, 2] > 0).all(), "a label without an example keeps what the head gives it"


def test_a_head_that_is_certain_is_not_outvoted(near: Neighbours) -> None:
    certain = np.array([[0.002, 0.996, 0.002]], np.float32)
    assert near.beside(certain, _around(0, 1)).argmax() == 1


def test_what_is_stored_is_what_was_computed_with(near: Neighbours) -> None:
    again = Neighbours.stored(arrays_of(near), near.labels)
    embedded = _around(0, 2)
    assert np.allclose(again.similar(embedded), near.similar(embedded), atol=1e-6)
