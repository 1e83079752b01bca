"""`similar` with the real embedding model, where its package is installed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunesmith.tools.suites.case import Case
from tunesmith.tools.suites.grading import Assertion, CannotGrade, Response, grade
from tunesmith.tools.suites.grading.embedding import LocalEmbedder, model_folder


def holds(embedder: LocalEmbedder, output: str, threshold: float) -> bool:
    assertion = Assertion(type="similar", value="The parcel arrives tomorrow.", threshold=threshold)
    case = Case(case_id="c", suite="s", messages=(), assertions=(assertion,))
    result = grade(case, Response(output), embedder=embedder)
    assert result.error is None
    return result.passed


@pytest.mark.lab
@pytest.mark.skipif(model_folder() is None, reason="the extra `similar` is not installed")
def test_what_means_the_same_is_nearer_than_what_shares_words() -> None:
    folder = model_folder()
    assert folder is not None
    with LocalEmbedder(folder) as embedder:
        (vector, again) = embedder.embed(["one", "one"])
        assert vector == pytest.approx(again, abs=1e-5)
        assert sum(x * x for x in vector) == pytest.approx(1.0, abs=1e-5)
        assert holds(embedder, "Your package will be delivered tomorrow.", 0.7)
        assert not holds(embedder, "The parcel of land was sold in a year.", 0.7)


def test_a_model_that_does_not_run_makes_an_error_that_says_why(tmp_path: Path) -> None:
    with LocalEmbedder(tmp_path / "nothing") as embedder, pytest.raises(CannotGrade, match=r"does not run: .+"):
        embedder.embed(["x"])
