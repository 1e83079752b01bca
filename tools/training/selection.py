"""Which checkpoint of a training is kept, and when it ends: by held-out rows, never by the training loss.

The lowest validation loss of those that stayed as near to the base as they have to (`max_kl`). Of several trainings of
one behaviour the last step is seldom the best, and a low loss alone says nothing of what was forgotten for it. But what
stays near the base because it has learned little is no choice: of a behaviour in German the one checkpoint within the
bound gave every message the same answer.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tunesmith.memory.files import atomic_write

_FILE = "validations.json"
"""In every checkpoint: what was measured of it and of those before it, so that a resumed training knows them."""
_HALVINGS = 3
"""At most: a rate that fell further would end the training in all but name."""
_LEARNED = 0.95
"""Of what the best checkpoint took off the base's loss, the least that one has to have taken off to be kept:
what is near the base because it learned little is no choice."""
_FARTHER = 2.0
"""Times the KL of the nearest. The nearest alone is no choice: of 370 rows of a person's own it had 0.061 and a third
more loss than later ones of 0.07, and passed 18 cases where one of those passed 26."""


@dataclass(frozen=True, slots=True)
class Validation:
    """What the model of a step costs on rows that are not trained on; None where there is no row of a kind."""

    step: int
    """0: the base."""
    loss: float | None
    """Cross-entropy a token, in nats, on rows of the behaviour."""
    kl: float | None
    """KL(base ‖ model) a token, in nats, on rehearsal rows: 0 is the base itself."""


@dataclass(frozen=True, slots=True)
class Selection:
    """How checkpoints are told apart."""

    max_kl: float = 0.0
    """The most divergence of one that is kept; 0: no bound."""
    patience: int = 0
    """Validations in a row without a better one that end a training; 0: it goes to its last step."""

    def rule(self, save_steps: int) -> str:
        """What will be kept, in words."""
        bound = f" whose KL to the base is at most {self.max_kl:g}" if self.max_kl else ""
        end = f"; {self.patience} in a row without a better one end it" if self.patience else ""
        slower = "; one beyond that halves the rate from there on, down to an eighth" if self.max_kl else ""
        every = f"validation before, and of a checkpoint every {save_steps} steps"
        return f"{every}; the lowest loss is kept{bound}{slower}{end}"

    def allows(self, one: Validation) -> bool:
        """Whether it is near enough to the base."""
        return not self.max_kl or one.kl is None or one.kl <= self.max_kl

    def rate_share(self, validations: Sequence[Validation]) -> float:
        """Share of the learning rate that is gone on with: half for every checkpoint that strayed too far, an eighth at
        least.

        The divergence of a training grows as the square of its rate, and what pulls a model back to its base is slow
        beside large steps.
        """
        return 0.5 ** min(_HALVINGS, sum(not self.allows(one) for one in validations if one.step))

    def best(self, validations: Sequence[Validation], among: Collection[int] | None = None) -> Validation | None:
        """The lowest loss within the bound of those that learned about as much as the best; where none is within, of
        those of them that are not much farther from the base than the nearest; None where no loss is known.

        Step 0 is the base, for what was learned. All validations are what one is measured by; with `among` only these
        steps can be chosen, as those whose checkpoints are still there.
        """
        judged = {one.step: one.loss for one in validations if one.loss is not None}
        before, lowest = judged.pop(0, None), min(judged.values(), default=0.0)
        learned = [one for one in validations if one.step in judged and _learned(one.loss or 0.0, lowest, before)]
        good = [one for one in learned if self.allows(one)]
        if not good:
            nearest = min((one.kl or 0.0 for one in learned), default=0.0)
            good = [one for one in learned if (one.kl or 0.0) <= _FARTHER * nearest]
        if among is not None:
            there = [one for one in validations if one.step in judged and one.step in among]
            good = [one for one in good if one in there] or there
        return min(good, key=lambda one: one.loss or 0.0, default=None)

    def ends(self, validations: Sequence[Validation]) -> bool:
        """Whether a training has gone on for `patience` validations after its best one."""
        best = self.best(validations)
        if not self.patience or best is None or not self.allows(best):
            return False
        return sum(one.step > best.step for one in validations) >= self.patience

    def sentence(self, best: Validation, *, ended: int, planned: int) -> str:
        """What was kept, in words: its step, its figures and the bound; and where the training ended early."""
        figures = [f"validation {best.loss:.3g}"] if best.loss is not None else []
        if best.kl is not None:
            bound = f" {'≤' if self.allows(best) else '>'} {self.max_kl:g}" if self.max_kl else ""
            figures.append(f"KL {best.kl:.3g}{bound}")
        choice = f"kept step {best.step} of {planned}: {', '.join(figures)}"
        if not self.allows(best):
            choice += (
                f"; none that learned {100 * _LEARNED:.0f} % of the most is within the bound; of those "
                f"nearest to it this one has the lowest loss"
            )
        if ended < planned:
            choice += f"; ended at step {ended}, after {self.patience} validations without a better one"
        return choice


def _learned(loss: float, lowest: float, before: float | None) -> bool:
    """Whether a loss is about as far below the base's as the lowest is; always where none is known to be below it."""
    return before is None or lowest >= before or before - loss >= _LEARNED * (before - lowest)


def write_validations(checkpoint: Path, validations: Sequence[Validation]) -> None:
    """Into a checkpoint that is not sealed yet."""
    atomic_write(checkpoint / _FILE, json.dumps([asdict(one) for one in validations]))


def read_validations(checkpoint: Path | None) -> list[Validation]:
    """Of a checkpoint; none where it is from before there were any."""
    if checkpoint is None or not (checkpoint / _FILE).exists():
        return []
    return [Validation(**one) for one in json.loads((checkpoint / _FILE).read_text())]
