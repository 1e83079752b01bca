"""The curves of a training."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fixtures import stored_runs
from tests.fixtures.asking import asked
from tunesmith.memory.errors import BadInput, NotFound
from tunesmith.memory.store import Store


def test_both_losses_are_told_with_where_they_were_lowest_and_what_the_training_came_to(two_runs: Store) -> None:
    found = asked(two_runs, "curve", run="r1")
    held_out, trained = found.facts
    assert held_out["curve"] == "validation_loss" and held_out["by_optimiser_step"] == {
        "0": 2.314, "25": 0.391, "50": 0.243, "75": 0.221
    }  # fmt: skip
    assert (held_out["first"], held_out["lowest"], held_out["lowest_at_step"]) == (2.314, 0.221, 75)
    assert trained["points"] == 75 and found.left_out == {"points": 75 - 12}
    assert found.of["optimiser_steps"] == 75 and found.of["mean_tokens_per_second"] == 402.7


def test_a_long_curve_is_thinned_and_keeps_its_ends(two_runs: Store) -> None:
    points = asked(two_runs, "curve", run="r1", metric="train_loss").facts[0]["by_optimiser_step"]
    assert isinstance(points, dict) and len(points) == 12 and {"1", "75"} < {*points}


def test_a_metric_whose_curve_was_not_kept_is_told_by_its_mean(two_runs: Store) -> None:
    found = asked(two_runs, "curve", run="r1", metric="tokens_per_second")
    assert not found.facts and found.of["mean_tokens_per_second"] == 402.7


def test_of_one_point_and_of_no_curve(tmp_path: Path) -> None:
    build = stored_runs.new_builder(tmp_path / "home")
    build.end(build.step("base"), 1.0, 1)
    with pytest.raises(NotFound, match="r1 has no training whose losses were kept"):
        asked(build.store, "curve", run="r1")
    stored_runs.start_training(build, 1)
    assert asked(build.store, "curve").of["status"] == "running"
    assert asked(build.store, "curve", metric="validation_loss").facts[0]["by_optimiser_step"] == {"0": 2.314}
    with pytest.raises(NotFound, match="kept no grad_norm; it kept validation_loss and train_loss"):
        asked(build.store, "curve", metric="grad_norm")
    with pytest.raises((BadInput, ValueError)):
        asked(build.store, "curve", metric="perplexity")
