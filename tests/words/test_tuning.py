"""What `make words` teaches the encoder is what the reader computes, and comes of the sentences."""

from __future__ import annotations

import numpy as np
import pytest

from tests.words import tuning
from tests.words.train import likelihood, prepared
from tunesmith.agent.words.encoder import Encoder

SAID = ["what is the weather", "will it rain", "is it cold outside", "how warm will it be"]
ORDERED = ["close the door", "shut the window please", "open the gate", "lock the back door"]


class _Changed(Encoder):
    """With one matrix that has the low-rank one in it."""

    def matrix(self, name: str) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
        return super().matrix(name) + (LOW["l7.fi.out"] @ LOW["l7.fi.in"] if name == "l7.fi" else 0)


LOW = {
    "l7.fi.in": np.linspace(-0.1, 0.1, 2 * 384, dtype=np.float32).reshape(2, 384),
    "l7.fi.out": np.linspace(0.2, -0.1, 1536 * 2, dtype=np.float32).reshape(1536, 2),
}


@pytest.mark.heavy
def test_a_low_rank_matrix_is_added_to_the_one_that_it_names() -> None:
    rounded = {name: array.astype(np.float16) for name, array in LOW.items()}
    taught, plain = Encoder(added=rounded).embed(SAID), Encoder().embed(SAID)
    assert np.abs(taught - _Changed().embed(SAID)).max() < 2e-3 < np.abs(taught - plain).max()


@pytest.mark.lab
def test_the_reader_computes_what_was_learned_and_tells_the_labels_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "_WARM_UP", 1)
    encoder, labels = Encoder(), np.array([0] * len(SAID) + [1] * len(ORDERED))
    sentences = prepared([*SAID, *ORDERED], labels, [], encoder)
    learned = tuning.Tuning(encoder, sentences).learned(np.array([0, 1, 2, 4, 5, 6]))
    taught = sentences.some(np.array([0, 1, 2, 4, 5, 6]))
    likely = likelihood(Encoder(added=learned.added), learned, sentences, taught)
    assert likely.argmax(axis=1).tolist() == labels.tolist()  # two of them were left out
    before = likelihood(encoder, learned, sentences, taught)
    assert np.abs(likely - before).max() > 1e-4
    monkeypatch.setattr(tuning, "_RATE", 0.0)
    begun = tuning.Tuning(encoder, taught).learned(np.arange(6), before=learned.added)
    assert all((begun.added[name] == array).all() for name, array in learned.added.items())  # it goes on from these


@pytest.mark.lab
def test_the_layer_alone_tells_the_labels_apart_and_leaves_the_matrices_as_they_were(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tuning, "_WARM_UP", 1)
    rounded = {name: array.astype(np.float16) for name, array in LOW.items()}
    encoder, labels = Encoder(added=rounded), np.array([0] * len(SAID) + [1] * len(ORDERED))
    sentences = prepared([*SAID, *ORDERED], labels, [], encoder)
    taught = sentences.some(np.array([0, 1, 2, 4, 5, 6]))
    learned = tuning.layer_alone(rounded, encoder.embed_ids(taught.ids), taught)
    assert {name: array.tobytes() for name, array in learned.added.items()} == {
        name: array.tobytes() for name, array in rounded.items()
    }
    assert likelihood(encoder, learned, sentences, taught).argmax(axis=1).tolist() == labels.tolist()
