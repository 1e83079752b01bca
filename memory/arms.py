"""The arms of an evaluation, and which evaluations of two arms are held against each other: one definition.

The later arm of the chain counts by its newest evaluation. The other counts by the same step where that holds both (one
server, nothing else changed), else by its newest that differs in nothing but what is under test, else by its newest.
That rule is one piece of SQL, `pairs_sql`: the view `v_flips` asks it of every finished evaluation, and a comparison
asks it of those that it admits. So what a question about the history counts is what `tunesmith compare` prints.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping

ARMS = ("base", "prompted", "adapter", "merged", "quantized")
"""Who answers, in the order of the pipeline."""
CHAIN = ("base", "adapter", "merged", "quantized")
"""What a model becomes on its way from the base to what is served."""
PASSED_SHARE = 0.5
"""A case is passed where more than this share of its answers passed; those that erred are no answers."""
RIVAL_TYPE = "select-best"
"""The assertion that rests on the answers of other arms, so that two steps tell nothing of the same case."""

# Which parts of the comparability key a hop changes. A merged model has 16 bits, and its base may be measured at 4.
_CHANGES: Mapping[str, frozenset[str]] = {
    "base": frozenset(),
    "prompted": frozenset({"system_prompt"}),
    "adapter": frozenset({"adapter"}),
    "merged": frozenset({"adapter", "weights", "lora", "precision"}),
    "quantized": frozenset({"adapter", "weights", "lora", "precision"}),
}


def under_test(a: str, b: str) -> frozenset[str]:
    """The parts of the key in which two arms may differ: what the hops to them change."""
    # An adapter's server allows its rank, a prompt's the usual one. What makes room for adapters answers no request
    # that names none, and base and adapter, which share that server, are held to be equal on the same ground.
    ranks = frozenset({"lora"}) if {a, b} == {"prompted", "adapter"} else frozenset[str]()
    return _CHANGES[a] | _CHANGES[b] | ranks


def _rows(rows: Iterable[tuple[object, ...]]) -> str:
    return ", ".join(f"({', '.join(map(repr, row))})" for row in rows)


_PLACES = _rows(enumerate(ARMS))
_UNDER_TEST = _rows((a, b, part) for a, b in itertools.combinations(ARMS, 2) for part in sorted(under_test(a, b)))

EVALUATIONS = """
SELECT run, 'base' AS arm, step, steps.rowid AS place, json_extract(result, '$.key') AS key
FROM steps WHERE stage = 'baseline' AND status = 'done'
UNION ALL
SELECT run, arms.key, step, steps.rowid, arms.value
FROM steps, json_each(steps.result, '$.keys') AS arms WHERE stage = 'evaluate' AND status = 'done'
"""
"""Every finished evaluation: run, arm, step, its place among the steps, and the key that the arm answered under."""

GIVEN = """
SELECT json_extract(value, '$.run') AS run, json_extract(value, '$.arm') AS arm, json_extract(value, '$.step') AS step,
       key AS place, json_extract(value, '$.key') AS key
FROM json_each(?)
"""
"""The same of those that a JSON list names, the oldest first."""

_MEASURED = "json_extract({one}_key, CASE {one}_arm WHEN 'adapter' THEN '$.adapter' ELSE '$.weights' END)"
_PART = "(json_type({one}_key, path), json_extract({one}_key, path))"  # a part that is null is not one that is lacking


def pairs_sql(evaluations: str) -> str:
    """One row for each two arms of a run: the step that counts for each, and in how many parts their keys differ.

    Columns: run, first_arm, first_step, last_arm, last_step, differing. What the later arm was made from is a part too:
    it differs where the store knows that it was another artifact than the one that the earlier arm answered with.
    """
    return f"""
WITH arm_places(number, name) AS (VALUES {_PLACES}),
under_test(first_arm, last_arm, part) AS (VALUES {_UNDER_TEST}),
evaluated AS (SELECT e.*, number FROM ({evaluations}) e JOIN arm_places ON name = e.arm),
newest AS (SELECT *, max(place) FROM evaluated GROUP BY run, arm),
candidates AS (
    SELECT l.run, f.arm AS first_arm, f.step AS first_step, f.key AS first_key, f.place, f.step = l.step AS together,
           l.arm AS last_arm, l.step AS last_step, l.key AS last_key
    FROM newest l JOIN evaluated f ON f.run = l.run AND f.number < l.number
), compared AS (
    SELECT c.*, (
        SELECT count(*) FROM (
            SELECT key AS part, fullkey AS path FROM json_each(c.first_key)
            UNION SELECT key, fullkey FROM json_each(c.last_key)
        ) WHERE {_PART.format(one="c.first")} IS NOT {_PART.format(one="c.last")} AND part NOT IN (
            SELECT u.part FROM under_test u WHERE u.first_arm = c.first_arm AND u.last_arm = c.last_arm)
    ) + coalesce((
        SELECT line.sha256 <> {_MEASURED.format(one="c.first")}
        FROM artifacts made JOIN v_lineage line ON line.artifact = made.artifact
        WHERE made.run = c.run AND made.kind = c.last_arm AND made.sha256 = {_MEASURED.format(one="c.last")}
              AND line.ancestor_kind = c.first_arm AND line.depth > 0
        ORDER BY made.rowid DESC, line.depth LIMIT 1
    ), 0) AS differing
    FROM candidates c
), ranked AS (
    SELECT *, row_number() OVER (
        PARTITION BY run, first_arm, last_arm ORDER BY together DESC, differing > 0, place DESC
    ) AS choice FROM compared
)
SELECT run, first_arm, first_step, last_arm, last_step, differing FROM ranked WHERE choice = 1
"""
