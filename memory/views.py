"""The views that questions are asked of: one row per run, step, flipped case, and link of a lineage.

They hold no prompt, output or row text on purpose: what a model may read about the history is numbers and
names, never data that somebody else wrote.
"""

from __future__ import annotations

from tunesmith.memory.arms import EVALUATIONS, PASSED_SHARE, RIVAL_TYPE, pairs_sql
from tunesmith.memory.records import BEGUN, BLIND_SHOWN

IS_LISTED = f"(r.stages <> '[]' OR EXISTS (SELECT 1 FROM steps s WHERE s.run = r.run AND {BEGUN}))"
"""Which rows `r` of `runs` are runs: those that follow a plan or have begun. Others were opened by a price alone."""

# Of a written plan its own steps count. A stage that was carried out more often than the plan has it counts as often
# as the plan has it, and a step that was done twice in the same way counts once.
V_RUNS = f"""
WITH begun AS (SELECT * FROM steps s WHERE {BEGUN}),
planned AS (
    SELECT r.run, stage.value AS stage, count(*) AS steps
    FROM runs r, json_each(r.stages) AS stage GROUP BY r.run, stage.value
), of_plans AS (
    SELECT run, sum(steps) AS steps, sum(min(steps, done)) AS done FROM (
        SELECT p.run, p.steps, (SELECT count(DISTINCT b.request) FROM begun b
                                WHERE b.run = p.run AND b.stage = p.stage AND b.status = 'done') AS done
        FROM planned p
    ) GROUP BY run
)
SELECT r.run, r.name, r.status,
       datetime(r.created_at, 'unixepoch') AS created_at,
       datetime(r.finished_at, 'unixepoch') AS finished_at,
       coalesce(o.steps, (SELECT count(*) FROM begun b WHERE b.run = r.run)) AS steps,
       coalesce(o.done, (SELECT count(*) FROM begun b WHERE b.run = r.run AND b.status = 'done')) AS steps_done,
       (SELECT round(sum(b.seconds), 1) FROM begun b WHERE b.run = r.run) AS seconds,
       (SELECT max(b.peak_rss_bytes) FROM begun b WHERE b.run = r.run) AS peak_rss_bytes
FROM runs r LEFT JOIN of_plans o ON o.run = r.run
WHERE {IS_LISTED}
"""

V_STEPS = f"""
SELECT s.run, s.step, s.stage, s.arm, s.status, s.seconds, s.estimated_seconds, s.peak_rss_bytes,
       s.estimated_peak_bytes, s.peak_vram_bytes, s.approval, a.decided_by, s.error, s.request, s.result,
       datetime(s.started_at, 'unixepoch') AS started_at, datetime(s.finished_at, 'unixepoch') AS finished_at
FROM steps s LEFT JOIN approvals a ON a.approval = s.approval
WHERE {BEGUN}
"""

# The cases on which two arms that may be compared differ, paired and reduced as `compare` does it. Of a pair that
# differs in more than what is under test nothing is told. Keys are compared whole: a judge that graded none of the
# cases of both counts here, and not for `compare`. Blind cases are left out until somebody opened them.
V_FLIPS = f"""
WITH pairs AS ({pairs_sql(EVALUATIONS)}), hidden AS (
    SELECT a.run, named.value AS case_id FROM artifacts a, json_each(a.meta, '$.blind') AS named
    WHERE a.kind = 'suite'
          AND NOT EXISTS (SELECT 1 FROM events e WHERE e.run = a.run AND e.event = '{BLIND_SHOWN}')
), verdicts AS (
    SELECT run, arm, block, case_id, step, avg(passed) > {PASSED_SHARE} AS passed,
           max(assertions LIKE '%"{RIVAL_TYPE}"%' OR assertions LIKE '%"not-{RIVAL_TYPE}"%') AS has_rivals
    FROM eval_results GROUP BY run, arm, block, case_id, step
), flips AS (
    SELECT p.run, p.first_arm, p.last_arm, a.block, a.case_id, a.passed AS first_passed, b.passed AS last_passed
    FROM pairs p
         JOIN verdicts a ON a.run = p.run AND a.arm = p.first_arm AND a.step = p.first_step
         JOIN verdicts b ON b.run = p.run AND b.arm = p.last_arm AND b.step = p.last_step
              AND b.case_id = a.case_id AND b.block = a.block
    WHERE p.differing = 0 AND a.passed <> b.passed
          AND NOT EXISTS (SELECT 1 FROM hidden h WHERE h.run = p.run AND h.case_id = a.case_id)
          AND (p.first_step = p.last_step OR NOT (a.has_rivals OR b.has_rivals))
)
SELECT run, first_arm AS arm_a, last_arm AS arm_b, block, case_id, first_passed AS passed_a, last_passed AS passed_b,
       CASE WHEN last_passed > first_passed THEN 'fail_to_pass' ELSE 'pass_to_fail' END AS flip
FROM flips
UNION ALL
SELECT run, last_arm, first_arm, block, case_id, last_passed, first_passed,
       CASE WHEN first_passed > last_passed THEN 'fail_to_pass' ELSE 'pass_to_fail' END
FROM flips
"""

V_LINEAGE = """
WITH RECURSIVE line(artifact, ancestor, depth) AS (
    SELECT artifact, artifact, 0 FROM artifacts
    UNION
    SELECT line.artifact, parent.value, line.depth + 1
    FROM line JOIN artifacts a ON a.artifact = line.ancestor, json_each(a.parents) AS parent
)
SELECT line.artifact, made.kind, made.run, line.depth, up.artifact AS ancestor, up.kind AS ancestor_kind,
       up.step AS made_by_step, s.stage AS made_by_stage, up.run AS made_by_run, up.sha256, up.bytes, up.path
FROM line JOIN artifacts made ON made.artifact = line.artifact
     JOIN artifacts up ON up.artifact = line.ancestor JOIN steps s ON s.step = up.step
"""

VIEWS = {"v_runs": V_RUNS, "v_steps": V_STEPS, "v_flips": V_FLIPS, "v_lineage": V_LINEAGE}

PATHS = {"v_steps": {"request": "json", "result": "json", "error": "text"}, "v_lineage": {"path": "text"}}
"""Columns of the views in which paths stand, and whether they are texts or documents."""
