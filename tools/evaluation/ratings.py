"""What people said of answers: for one message, whether the base's answer is right and whether the newest arm's is.

A rated case needs no assertion, so it counts for style, prose, refusal and code too. It is paired: both answers were
judged by the same person, unlabelled and in random order. A judgement is of answers: it belongs to the artifact that
gave them, and another arm of the same training has to answer anew.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from tunesmith.memory.ratings import Pair, Rating, ratings_in, ratings_of_message
from tunesmith.memory.store import Store

BASE = "base"


@dataclass(frozen=True, slots=True)
class Rated:
    """One message that a person judged two answers to."""

    case_id: str
    base_right: bool
    arm_right: bool
    by: str
    """Who pressed the keys."""
    at: str
    """When, as ISO 8601 in UTC."""
    written_by_a_person: bool
    """Whether a person wrote or pasted the message; ratings of generated messages are shown apart and never count."""
    opening: int = 1
    """Which training was the one whose answers to this message a person saw here: 1 the first. The arms of one training
    (adapter, merged, quantized) are one opening."""


def ratings_of(store: Store, run: str, arm: str) -> tuple[Rated, ...]:
    """The ratings of an arm of a run against the base, oldest first; what was taken back is left out.

    Of an arm that was made again only the newest artifact's count: the earlier answers were another model's.
    """
    artifacts = store.artifacts(run, arm)
    if not artifacts:
        return ()
    of_arm = [
        one
        for one in ratings_in(store, run)
        if one.rated and not one.taken_back
        if one.pair.first_arm == BASE and one.pair.last_artifact == artifacts[-1].id
    ]
    openings = _openings(store, of_arm)
    return tuple(
        Rated(
            case_id=f"rated-{one.digest[:12]}",
            base_right=bool(one.first_right),
            arm_right=bool(one.last_right),
            by=one.rated_by,
            at=datetime.fromtimestamp(one.rated_at, UTC).isoformat(timespec="seconds"),
            written_by_a_person=by_a_person(one),
            opening=openings[one.id],
        )
        for one in sorted(of_arm, key=lambda one: (one.rated_at, one.id))
    )


def by_a_person(rating: Rating) -> bool:
    """Whether its message counts as a person's."""
    return rating.source != "generated"


def _openings(store: Store, ratings: Iterable[Rating]) -> dict[int, int]:
    """Id of a rating → the place of its training among those whose answers to its message were judged, in any run."""
    wanted = list(ratings)
    trainings: dict[str, dict[str, int]] = {}
    for one in ratings_of_message(store, [one.digest for one in wanted]) if wanted else ():
        known = trainings.setdefault(one.digest, {})
        known.setdefault(one.pair.training, len(known) + 1)
    return {one.id: trainings[one.digest][one.pair.training] for one in wanted}


def numbered(store: Store, pair: Pair) -> dict[int, Rating]:
    """Number → message of a pair as it stands now, in the order in which they were added; a number stays one's own."""
    numbers: dict[str, int] = {}
    now: dict[int, Rating] = {}
    for one in ratings_in(store, pair.run):
        if one.pair == pair:
            number = numbers.setdefault(one.digest, len(numbers) + 1)
            if not one.taken_back:
                now[number] = one
    return dict(sorted(now.items()))


@dataclass(frozen=True, slots=True)
class Tally:
    """How far the rating of a pair is, generated messages apart."""

    messages: int
    right: tuple[int, int]
    """Of the judged ones, by the pair's arms."""
    open: int
    taken_back: int = 0

    @property
    def rated(self) -> int:
        """Messages that were judged."""
        return self.messages - self.open


def tally(store: Store, pair: Pair, *, generated: bool = False) -> Tally:
    """The count of a pair's messages: a person's, or with `generated` those that a model wrote."""
    all_ = [one for one in ratings_in(store, pair.run) if one.pair == pair and by_a_person(one) is not generated]
    now = [one for one in all_ if not one.taken_back]
    right = sum(bool(one.first_right) for one in now), sum(bool(one.last_right) for one in now)
    return Tally(len(now), right, sum(not one.rated for one in now), len(all_) - len(now))


def earlier_messages(store: Store, pair: Pair) -> list[Rating]:
    """The messages that were judged in this run with other models, each once, and that this pair has not."""
    own = {one.digest for one in ratings_in(store, pair.run) if one.pair == pair}
    others = [one for one in ratings_in(store, pair.run) if one.digest not in own and one.rated]
    return list({one.digest: one for one in others}.values())
