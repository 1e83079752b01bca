"""The checkpoint that is kept is the best by held-out rows within the bound; a training without a better one ends."""

from __future__ import annotations

from pathlib import Path

from tests.fixtures.tables import table
from tunesmith.tools.training.selection import Selection, Validation, read_validations, write_validations

BOUNDED = Selection(max_kl=0.05, patience=3)


def found(*figures: tuple[float | None, float | None]) -> list[Validation]:
    """A validation every 20 steps, as (loss, KL)."""
    return [Validation(20 * number, loss, kl) for number, (loss, kl) in enumerate(figures, 1)]


@table(
    ("selection", "figures", "step"),
    [
        (BOUNDED, [(0.4, 0.02), (0.11, 0.02), (0.2, 0.03)], 40),
        (BOUNDED, [(0.4, 0.02), (0.3, 0.05), (0.1, 0.051)], 40),  # the lowest loss is too far from the base
        (BOUNDED, [(0.4, 0.09), (0.3, 0.06), (0.1, 0.07)], 60),  # none is near enough: the lowest loss
        (BOUNDED, [(0.4, 0.09), (0.3, 0.06), (0.1, 0.13)], 40),  # but none that is twice as far as the nearest
        (BOUNDED, [(2.104, 0.0614), (2.01, 0.0697), (2.006, 0.0692)], 60),  # whatever all of them have in common
        (Selection(), [(0.4, 0.02), (0.3, 0.05), (0.1, 9.0)], 60),
        (BOUNDED, [(0.4, None), (0.1, None)], 40),  # no rehearsal, no bound
        (BOUNDED, [(0.2, 0.01), (0.2, 0.01)], 20),
        (BOUNDED, [(None, 0.01), (None, 0.01)], None),
        (BOUNDED, [], None),
    ],
)
def test_the_lowest_loss_within_the_bound_is_kept(
    selection: Selection, figures: list[tuple[float | None, float | None]], step: int | None
) -> None:
    best = selection.best(found(*figures))
    assert (best.step if best else None) == step


BASE = Validation(0, 4.2, 0.0)


@table(
    ("figures", "step"),
    [
        ([(2.4, 0.0499), (2.2, 0.09), (2.18, 0.07), (2.17, 0.071)], 80),  # what stayed near learned too little
        ([(2.2, 0.0499), (2.18, 0.07), (2.17, 0.071)], 20),  # within 95 % of the most: the bound decides
        ([(4.1, 0.001), (2.2, 0.3), (2.17, 0.2)], 60),
        ([(4.3, 0.01), (4.25, 0.01)], 40),  # nothing was learned at all: the lowest of what there is
    ],
)
def test_what_is_near_the_base_because_it_learned_little_is_not_kept(
    figures: list[tuple[float | None, float | None]], step: int
) -> None:
    assert (best := BOUNDED.best([BASE, *found(*figures)])) is not None and best.step == step
    assert BOUNDED.best([BASE]) is None


def test_what_is_no_longer_there_is_still_what_the_others_are_measured_by() -> None:
    """The nearest had been given up meanwhile: the rest were measured by the nearest of them, and one beyond won."""
    many = found((0.47, 0.06), (0.3, 0.11), (0.2, 0.13))
    assert [BOUNDED.best(many, among) for among in (None, (40, 60), (60,))] == [many[1], many[1], many[2]]
    assert BOUNDED.best([BASE, *many], (0,)) is None


def test_a_training_whose_near_checkpoints_learned_too_little_goes_on() -> None:
    learning = found((2.4, 0.0499), (2.2, 0.09), (2.18, 0.07), (2.17, 0.071))
    assert not BOUNDED.ends([BASE, *learning]) and BOUNDED.ends(learning)


@table(
    ("selection", "losses", "ends"),
    [
        (BOUNDED, [0.4, 0.1, 0.2, 0.3], False),
        (BOUNDED, [0.4, 0.1, 0.2, 0.3, 0.1], True),  # the same is not better
        (BOUNDED, [0.1, 0.2, 0.2, 0.09], False),
        (Selection(max_kl=0.05), [0.1, 0.2, 0.3, 0.4, 0.5], False),
        (Selection(max_kl=0.001, patience=3), [0.1, 0.2, 0.3, 0.4, 0.5], False),  # it may still come near the base
    ],
)
def test_a_training_ends_after_as_many_validations_without_a_better_one_as_it_is_given(
    selection: Selection, losses: list[float], ends: bool
) -> None:
    assert selection.ends(found(*((loss, 0.02) for loss in losses))) is ends


def test_the_choice_is_told_with_its_figures_and_the_bound() -> None:
    best = Validation(60, 0.11, 0.02)
    told = "kept step 60 of 120: validation 0.11, KL 0.02 ≤ 0.05"
    assert BOUNDED.sentence(best, ended=120, planned=120) == told
    early = f"{told}; ended at step 100, after 3 validations without a better one"
    assert BOUNDED.sentence(best, ended=100, planned=120) == early
    far = BOUNDED.sentence(Validation(60, 0.11, 0.0504), ended=120, planned=120)
    assert "KL 0.0504 > 0.05; none that learned 95 % of the most is within the bound" in far
    assert (
        Selection().sentence(Validation(60, 0.11, None), ended=60, planned=60) == "kept step 60 of 60: validation 0.11"
    )


def test_validations_go_with_their_checkpoint(tmp_path: Path) -> None:
    many = found((0.4, 0.02), (0.3, None), (None, 0.1))
    write_validations(tmp_path, many)
    assert read_validations(tmp_path) == many
    assert read_validations(tmp_path / "of an earlier version") == [] == read_validations(None)


def test_a_training_that_strays_goes_on_at_half_the_rate_for_each_time_it_did() -> None:
    kl = [0.09, 0.08, 0.04, 0.06, 0.07, 0.09]
    shares = [BOUNDED.rate_share(found(*((0.3, one) for one in kl[:count]))) for count in range(len(kl) + 1)]
    assert shares == [1, 0.5, 0.25, 0.25, 0.125, 0.125, 0.125]  # an eighth is the least
    assert Selection().rate_share(found((0.3, 9.0))) == BOUNDED.rate_share(found((0.3, None))) == 1
