"""2,000 synthetic A/B pairs: our 95 % interval covers 93–97 %, and no difference is called one in at most 5 %.

Then suites of 16–24 cases, cases that come in clusters, and graded scores. With clusters the interval of pass rates is
meant to cover too much: it allows for cases of one row that always agree, and is held to 93 % from below alone.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.bench._simulation import simulate, simulate_graded

PAIRS = 2000


def others() -> bool:
    """Print the coverage of the other kinds of suites; whether each is within its bounds."""
    print("95 % interval covers                    pass rates   the clusters ignored   false alarms   graded scores")
    good = True
    for cases in ((40, 240), (16, 24)):
        for cluster in (1, 2, 4):
            real = simulate(PAIRS, 3, no_difference=False, cases=cases, cluster=cluster)
            none = simulate(PAIRS, 4, no_difference=True, cases=cases, cluster=cluster)
            graded = simulate_graded(PAIRS, 5, cases=cases, cluster=cluster)
            rates, scores, alarms = real.share(real.covered), graded.share(graded.covered), none.share(none.alarms)
            ignored = real.share(real.ignoring_covered)
            told = f"{cases[0]}–{cases[1]} cases, {cluster} of each seed row"
            print(f"{told:38}  {rates:10.1%}   {ignored:20.1%}   {alarms:12.1%}   {scores:13.1%}")
            good &= 0.93 <= rates <= (0.97 if cluster == 1 else 1) and 0.93 <= scores <= 0.97 and alarms <= 0.05
    return good


def main() -> int:
    """Print the figures beside those of comparing two pass rates; 1 where ours miss."""
    real, none = simulate(PAIRS, 1, no_difference=False), simulate(PAIRS, 2, no_difference=True)
    coverage, none_coverage = real.share(real.covered), none.share(none.covered)
    alarms = none.share(none.alarms)
    print(f"{PAIRS} pairs each, 40–240 cases          ours     two pass rates")
    print(f"95 % interval covers (a difference)   {coverage:6.1%}     {real.share(real.naive_covered):6.1%}")
    print(f"95 % interval covers (none)           {none_coverage:6.1%}     {none.share(none.naive_covered):6.1%}")
    print(f"its width, points                     {real.share(real.width) * 100:6.1f}     "
          f"{real.share(real.naive_width) * 100:6.1f}")  # fmt: skip
    print(f"difference found where there is one   {real.share(real.alarms):6.1%}     "
          f"{real.share(real.naive_alarms):6.1%}")  # fmt: skip
    print(f"difference found where there is none  {alarms:6.1%}     {none.share(none.naive_alarms):6.1%}")
    print(f"  … by “the higher pass rate is better”           {none.share(none.higher_wins):6.1%}")
    good = others()
    good &= 0.93 <= coverage <= 0.97 and 0.93 <= none_coverage <= 0.97 and alarms <= 0.05
    print("within the bounds" if good else "MISSED: coverage must be 93–97 %, false positives at most 5 %")
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
