"""How sentences are read: right, wrong with certainty, or left to the driver.

    python -m tests.bench.reading FILE [--show] [--variants N]

FILE is YAML or JSON: items `{say, kinds: [...], plan_open: bool, before: [...]}`. `kinds` are the labels that are
right, `step.time` or a whole kind such as `step`, `do`, `talk`, and `READ` for any question; `before` was said first,
and `moment` is where one stands (`agent/words/head.py`).
Variants change no meaning: a lead-in, a letter lost, two letters swapped, upper case.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.fixtures import yaml_of
from tunesmith.agent.queries.registry import REQUESTS
from tunesmith.agent.words.head import kind_of
from tunesmith.agent.words.reading import Context, Reading, read, reader
from tunesmith.memory.records import Run

PLANNED = ("base", "baseline", "generate", "critique", "preflight", "train", "evaluate", "merge", "quantize", "deploy")
_LEAD_INS = ("so, ", "quick question: ", "ok, one more thing - ", "hm, ")


def context_of(item: Mapping[str, Any], runs: tuple[Run, ...] = ()) -> Context:
    """What an item is said in: what was said before it is read first."""
    context = Context(runs=runs, planned=PLANNED if item.get("plan_open") else (), moment=item.get("moment", ""))
    for said in item.get("before") or ():
        request = read(said, context).request
        context = replace(context, before=request or context.before)
    return context


def right(label: str, kinds: Sequence[str]) -> bool:
    """Whether a label is one of those wanted, by itself, by its kind or by its family."""
    family = label.partition(".")[0]
    return bool({label, kind_of(label), family} & set(kinds)) or ("READ" in kinds and family in REQUESTS)


def verdict(reading: Reading, kinds: Sequence[str]) -> str:
    """right, wrong or abstained."""
    return "abstained" if not reading.sure else "right" if right(reading.label, kinds) else "wrong"


def variants(said: str, chance: random.Random) -> Iterator[str]:
    """The sentence with changes that change no meaning."""
    words = said.split()
    long = [i for i, word in enumerate(words) if len(word) >= 5 and word.isalpha()]
    yield chance.choice(_LEAD_INS) + said
    yield "quick question: " + said
    yield said.upper()
    for swap in (False, True):
        if long:
            i, changed = chance.choice(long), list(words)
            at, word = chance.randrange(1, len(words[i]) - 1), words[i]
            changed[i] = word[:at] + (word[at + 1] + word[at] + word[at + 2 :] if swap else word[at + 1 :])
            yield " ".join(changed)


def main() -> int:
    """Read, print the counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--show", action="store_true", help="print what is wrong and what is left")
    parser.add_argument("--variants", action="store_true", help="read each item's variants too")
    args = parser.parse_args()
    items = yaml_of(args.file.read_text(encoding="utf-8"))
    reader()
    counts, forced, seconds, same = Counter[str](), 0, [], Counter[str]()
    chance = random.Random(0)
    for item in items:
        context = context_of(item)
        began = time.perf_counter()
        reading = read(item["say"], context)
        seconds.append(time.perf_counter() - began)
        found = verdict(reading, item["kinds"])
        counts[found] += 1
        forced += right(reading.label, item["kinds"])
        if args.show and found != "right":
            print(f"{found:9} {reading.probability:.2f} {reading.label:22} {item['kinds']}  {item['say'][:100]}")
        for changed in variants(item["say"], chance) if args.variants else ():
            other = read(changed, context)
            kept = (other.sure and other.kind == reading.kind) if reading.sure else not other.sure
            same["same" if kept else "abstained" if not other.sure else "another"] += 1
    total = sum(counts.values())
    print(", ".join(f"{name} {counts[name]} ({counts[name] / total:.1%})" for name in ("right", "wrong", "abstained")))
    print(f"right if it always answered: {forced / total:.1%}; median {1000 * statistics.median(seconds):.0f} ms")
    if same:
        print("variants: " + ", ".join(f"{name} {n / sum(same.values()):.1%}" for name, n in same.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
