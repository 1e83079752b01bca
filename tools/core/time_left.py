"""How far a whole step is, and how long it will still take: by its price at first, by what is measured more and more.

A step does its kinds of work one after the other, each in one pass or several. What is left of it is what is left of
the kind at work, by the pace of its pass where that is known, and the price of the kinds to come, times the factor by
which those before were slower. The share that is done weighs every kind by its price, counts within it what is counted
(answers, steps), and never falls.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tunesmith.tools.core.format import duration
from tunesmith.tools.core.rates import ANSWER, START, TRAIN

WAIT = "wait"
"""For others to be done with the machine: no work, and in no price."""
_PRIOR = 0.25
"""Of the whole price: so many seconds are taken to have kept to it before any had passed."""
_MORE, _MORE_S, _OFF = 0.25, 4.0, 0.1
"""Of the time that was told to be left: where more than so much is lacking, it is told anew, in words; and of the
price, from which on these name it."""
_AT_LEAST, _UNTIL_FIRST = 0.1, 1.0
"""Of the time that a kind of work took so far: what is left of it where its price is used up and nothing says more; and
where the first of its answers or steps has not come yet."""
_HALF_TRUSTED = 0.1
"""Of some work, the share after which its pace and its price say as much."""
_ALMOST = 0.99
"""What is at work is never shown as done: the last words, writing and checking, have no units."""


@dataclass(slots=True)
class _Pass:
    """One round of a kind of work, in units of its own."""

    total: float = 0.0
    done: float = 0.0
    first: float = 0.0
    """Units that were done when it was first seen: by an attempt before this one."""
    began: float = 0.0

    def left_s(self, now: float) -> float | None:
        """By its own pace; None while that is not known."""
        if self.done <= self.first or not self.total:
            return None
        return (now - self.began) * max(self.total - self.done, 0.0) / (self.done - self.first)


@dataclass(slots=True)
class TimeLeft:
    """Of one step at work; every time is in seconds since it was started."""

    price_by_kind: Mapping[str, float]
    """Kind of work → its price, in the order of the work."""
    answers: float = 0.0
    """Answers that the price is for."""
    kind: str = START
    took: dict[str, float] = field(default_factory=dict)
    """Kind → what it took, of those that were at work before the present one."""
    _since: float = 0.0
    _pass: _Pass = field(default_factory=_Pass)
    _before: tuple[float, float] = (0.0, 0.0)
    """Units that earlier passes of this kind had, and how many of them there were to do here."""
    _share: float = 0.0
    _total_s: float = 0.0
    """All the time that the step takes, as it was told last."""
    _longer: bool = False

    @property
    def priced(self) -> float:
        """The whole price."""
        return sum(self.price_by_kind.values())

    @property
    def usual_kind(self) -> str:
        """What most of the time is for, but for the start."""
        others = {kind: seconds for kind, seconds in self.price_by_kind.items() if kind != START}
        return max(others, key=others.__getitem__, default=START)

    def report(self, kind: str, done: float, total: float, now: float) -> None:
        """Work of a kind has come so far in its present pass; without units (a total of 1 at most) it only goes on."""
        if kind != self.kind:
            self._leave(now)
            self.kind, self._pass, self._before = kind, _Pass(began=now), (0.0, 0.0)
        if total <= 1:
            return
        if total != self._pass.total or done < self._pass.done:
            here = self._pass.done - self._pass.first
            self._before = (self._before[0] + self._pass.done, self._before[1] + here)
            self._pass = _Pass(total, done, done, now)
        self._pass.done = done

    def end(self, now: float) -> Mapping[str, float]:
        """What every kind of work took, once the step is at its end."""
        self._leave(now)
        return {kind: seconds for kind, seconds in self.took.items() if kind != WAIT}

    def _leave(self, now: float) -> None:
        self.took[self.kind] = self.took.get(self.kind, 0.0) + now - self._since
        self._since = now

    def progress(self, now: float) -> tuple[float, float]:
        """Seconds of the whole step that count as done, and all of them. The share of both never falls, and all of them
        grow only together with `word`."""
        spent, left = self._spent(now), self._left_of_kind(now)
        whole = now + left + self._slower * self._to_come
        longer = self._total_s > 0 and whole - self._total_s > max(_MORE * (self._total_s - now), _MORE_S)
        if longer or whole < self._total_s or not self._total_s:
            self._total_s, self._longer = whole, self._longer or longer
        share = self._counted
        if share is None:
            share = spent / (spent + left) if spent + left else 0.0
        before = sum(price for kind, price in self.price_by_kind.items() if kind in self.took and kind != self.kind)
        done = (before + self.price_by_kind.get(self.kind, 0.0) * share) / (self.priced or 1.0)
        self._share = max(self._share, min(done, _ALMOST))
        return self._share * self._total_s, self._total_s

    @property
    def word(self) -> str:
        """What is said once it takes longer than was told before."""
        if not self._longer:
            return ""
        over = self._total_s > self.priced + max(_OFF * self.priced, _MORE_S)
        return f"{duration(self._total_s)} in all" + (f", priced {duration(self.priced)}" if over else "")

    def _spent(self, now: float) -> float:
        """On the kind at work."""
        return self.took.get(self.kind, 0.0) + now - self._since

    @property
    def _to_come(self) -> float:
        """The price of the kinds that have not begun."""
        return sum(price for kind, price in self.price_by_kind.items() if kind not in self.took and kind != self.kind)

    @property
    def _slower(self) -> float:
        """The factor by which the kinds before the present one took longer than their price."""
        finished = [kind for kind in self.took if kind in self.price_by_kind and kind != self.kind]
        took, price = (sum(of[kind] for kind in finished) for of in (self.took, self.price_by_kind))
        prior = _PRIOR * self.priced or 1.0
        return (prior + took) / (prior + price)

    @property
    def _counted(self) -> float | None:
        """The share of the kind at work by its units; None where these are not all of it, or nothing counts them."""
        if self.kind == ANSWER and self.answers:
            expected = max(self.answers, self._before[0] + self._pass.total)
            return min((self._before[0] + self._pass.done) / expected, 1.0)
        if self.kind == TRAIN:  # its steps are the one pass that counts
            return min(self._pass.done / self._pass.total, 1.0) if self._pass.total else 0.0
        return None

    def _left_of_kind(self, now: float) -> float:
        """By the pace where it is known, and by the price the less the more of the work it is known of."""
        spent, price, share = self._spent(now), self._slower * self.price_by_kind.get(self.kind, 0.0), self._counted
        rest, by_pace = max(price - spent, 0.0), self._pass.left_s(now)
        if by_pace is None:
            least = 0.0 if self.kind == WAIT else _AT_LEAST if share is None else _UNTIL_FIRST
            return max(rest, least * spent) * (1 - (share or 0.0))
        if share is not None:
            if self.kind == ANSWER:  # by all passes: each has only some of the answers
                here = self._before[1] + self._pass.done - self._pass.first
                by_pace = spent * (1 - share) * (self._before[0] + self._pass.done) / share / here
            trust = share / (share + _HALF_TRUSTED)
            return trust * by_pace + (1 - trust) * (1 - share) * price
        # One pass of perhaps several: it is all of the work the surer the more of the price is spent.
        of_pass = self._pass.done / self._pass.total
        sure = of_pass * min(spent / price, 1.0) if price else 1.0
        return sure * by_pace + (1 - sure) * max(by_pace, rest)
