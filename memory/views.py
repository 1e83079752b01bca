"""The views that questions are asked of: one row per run, step, flipped case, and link of a lineage.

They hold no prompt, output or row text on purpose: what a model may read about the history is numbers and
names, never data that somebody else wrote.
"""

from __future__ import annotations

V_RUNS = """
SELECT r.run, r.name, r.status,
       datetime(r.created_at, 'unixepoch') AS created_at,
       datetime(r.finished_at, 'unixepoch') AS finished_at,
       (SELECT count(*) FROM steps s WHERE s.run = r.run) AS steps,
       (SELECT count(*) FROM steps s WHERE s.run = r.run AND s.status = 'done') AS steps_done,
       (SELECT round(sum(s.seconds), 1) FROM steps s WHERE s.run = r.run) AS seconds,
       (SELECT max(s.peak_rss_bytes) FROM steps s WHERE s.run = r.run) AS peak_rss_bytes
FROM runs r
"""

V_STEPS = """
SELECT s.run, s.step, s.stage, s.arm, s.status, s.seconds, s.estimated_seconds, s.peak_rss_bytes,
       s.estimated_peak_bytes, s.peak_vram_bytes, s.approval, a.decided_by, s.error, s.request, s.result,
       datetime(s.started_at, 'unixepoch') AS started_at, datetime(s.finished_at, 'unixepoch') AS finished_at
FROM steps s LEFT JOIN approvals a ON a.approval = s.approval
"""

# The last finished evaluation of an arm is the one that counts; a case's repeats are reduced to their majority.
V_FLIPS = """
WITH latest AS (
    SELECT e.run, e.arm, max(CAST(substr(e.step, 2) AS INTEGER)) AS n
    FROM eval_results e JOIN steps s ON s.step = e.step AND s.status = 'done' GROUP BY e.run, e.arm
), verdicts AS (
    SELECT e.run, e.arm, e.block, e.case_id, e.step,
           CASE WHEN sum(e.passed IS NULL) > 0 THEN NULL ELSE avg(e.passed) > 0.5 END AS passed
    FROM eval_results e JOIN latest l ON l.run = e.run AND l.arm = e.arm AND e.step = 's' || l.n
    GROUP BY e.run, e.arm, e.block, e.case_id, e.step
)
SELECT a.run, a.arm AS arm_a, b.arm AS arm_b, a.block, a.case_id,
       a.passed AS passed_a, b.passed AS passed_b,
       CASE WHEN b.passed > a.passed THEN 'fail_to_pass' ELSE 'pass_to_fail' END AS flip
FROM verdicts a JOIN verdicts b ON a.run = b.run AND a.case_id = b.case_id AND a.block = b.block
     AND a.arm <> b.arm
WHERE a.passed IS NOT NULL AND b.passed IS NOT NULL AND a.passed <> b.passed
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
