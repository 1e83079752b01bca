"""The likelihood of held-out rows at work: a served model reads rows, and tells how likely it found each token.

What is served is what is measured. Of behaviour rows the token that is there is enough; of ordinary answers the
likeliest tokens are kept beside it, in the step's folder, so that a later arm can be held against this one. KL is taken
over the tokens that both arms name among their likeliest, and all others as one: that is never more than the true KL.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from tunesmith.memory.arms import CHAIN
from tunesmith.memory.errors import BadInput
from tunesmith.memory.files import atomic_write
from tunesmith.memory.records import TrainingRow
from tunesmith.tools.core.job import Job
from tunesmith.tools.core.settled import TOKENIZERS, TORCH, load_modules
from tunesmith.tools.core.stage import Request
from tunesmith.tools.data.row_file import read_rows
from tunesmith.tools.evaluation.asking import Arm
from tunesmith.tools.evaluation.likelihood import MOST_ROWS, TOP_TOKENS, ArmLikelihood, row_tokens
from tunesmith.tools.evaluation.lineage import Lineage
from tunesmith.tools.evaluation.pairing import Evaluations
from tunesmith.tools.evaluation.protocol import measured
from tunesmith.tools.serving import servers
from tunesmith.tools.serving.bench import bench_at_work
from tunesmith.tools.serving.scoring import ScoredToken, score_prompts
from tunesmith.tools.training.rows import HELD_ORIGINS, IGNORED, TokenRow, tokenize_row

Distribution = dict[int, float]
"""Likeliest next tokens → their log probabilities."""
_DISTRIBUTIONS: TypeAdapter[list[list[Distribution]]] = TypeAdapter(list[list[dict[int, float]]])
_CONCURRENCY = 24
_SEED = 17
_LEAST_CHANCE = 1e-9
"""Log probabilities come rounded: what is left of 1 below this is nothing."""


@dataclass(frozen=True, slots=True)
class HeldOutRows:
    """Rows as tokens, none of them trained on."""

    behaviour: Sequence[TokenRow]
    ordinary: Sequence[TokenRow]

    @property
    def sha256(self) -> str:
        """Of all tokens and of which of them count."""
        rows = [[row.input_ids, row.labels] for row in (*self.behaviour, *self.ordinary)]
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def held_out_rows(job: Job[Request], arm: str) -> HeldOutRows:
    """Rows that an arm's adapter was not trained on, drawn by seed.

    Of the data set of that very adapter: its validation split, whose rows no training step reads. Raises BadInput where
    there are none to ask about, StepFailed where the data set was changed.
    """
    lineage = Lineage.of(job.store, job.inputs[arm], arm)
    adapter = lineage.models.get("adapter")
    dataset = job.store.ancestor(adapter, "dataset") if adapter else None
    path = job.unchanged(dataset).path / "valid.jsonl" if dataset else None
    if path is None or not path.is_file() or not path.stat().st_size:
        raise BadInput("no row was held out of training")
    rows = read_rows(path)
    behaviour = _drawn([row for row in rows if row.origin not in HELD_ORIGINS])
    ordinary = _drawn([row for row in rows if row.origin in HELD_ORIGINS])

    load_tokenizers(job)
    from transformers import AutoTokenizer

    served = job.inputs["base" if arm == "adapter" else arm]
    tokenizer, most = AutoTokenizer.from_pretrained(served.path), row_tokens(served.meta.get("config", {}))
    at_once = bench_at_work(job).thinking == "off"
    held = HeldOutRows(
        *([tokens for row in kind if (tokens := tokenize_row(tokenizer, row, most, at_once=at_once)).trainable]
          for kind in (behaviour, ordinary))
    )  # fmt: skip
    if not held.behaviour:
        raise BadInput(f"no row of the behaviour with an answer in its first {most} tokens was held out of training")
    return held


def load_tokenizers(job: Job[Request]) -> None:
    """Import what a tokenizer takes; where the process ends with the step without torch, so that no model can be loaded
    by transformers in it any more."""
    load_modules(TOKENIZERS, without=(TORCH,) if job.alone else ())


def _drawn(rows: Sequence[TrainingRow]) -> list[TrainingRow]:
    return random.Random(_SEED).sample(rows, min(MOST_ROWS, len(rows)))


def measure_arm(job: Job[Request], server: servers.Server, served: Arm, rows: HeldOutRows) -> ArmLikelihood:
    """Have a served model read the rows; its distributions stay in the step's folder for the arms that come after."""
    arm, weights = served.name, measured(served.name, served.key)
    job.progress(0, 0, f"{arm}: likelihood of rows that were not trained on")
    asked = [(row.input_ids, 0) for row in rows.behaviour] + [(row.input_ids, TOP_TOKENS) for row in rows.ordinary]
    answers = asyncio.run(score_prompts(server, served.model, asked, concurrency=_CONCURRENCY))
    servers.renew(server)
    of_rows = [_counted(row, scored) for row, scored in zip((*rows.behaviour, *rows.ordinary), answers, strict=True)]
    behaviour, ordinary = of_rows[: len(rows.behaviour)], of_rows[len(rows.behaviour) :]
    mine = [[token.likeliest for token in row] for row in ordinary]
    file = job.dir / _file_name(arm)
    atomic_write(file, json.dumps({"rows": rows.sha256, "weights": weights, "distributions": mine}))
    return ArmLikelihood(
        rows_sha256=rows.sha256,
        behaviour_tokens=tuple(len(row) for row in behaviour),
        behaviour_nll=tuple(round(-math.fsum(token.logprob for token in row), 4) for row in behaviour),
        ordinary_tokens=tuple(len(row) for row in ordinary),
        divergence=_divergences(job, arm, rows, mine),
        weights=weights,
    )


def _counted(row: TokenRow, scored: Sequence[ScoredToken | None]) -> list[ScoredToken]:
    """The tokens that the answer consists of."""
    pairs = zip(row.labels, scored, strict=True)
    return [token for label, token in pairs if label != IGNORED and token is not None]


def _file_name(arm: str) -> str:
    return f"likeliest-tokens-{arm}.json"


def _divergences(
    job: Job[Request], arm: str, rows: HeldOutRows, mine: Sequence[Sequence[Distribution]]
) -> dict[str, tuple[float, ...]]:
    """Against every earlier arm that read the same rows, as far as what it said is still there."""
    found = {}
    for before in CHAIN[: CHAIN.index(arm)]:
        theirs = _stored(job, arm, before, rows)
        if theirs:
            found[before] = tuple(
                round(math.fsum(least_divergence(p, q) for p, q in zip(*pair, strict=True)), 6)
                for pair in zip(theirs, mine, strict=True)
            )
    return found


def _stored(job: Job[Request], arm: str, before: str, rows: HeldOutRows) -> list[list[Distribution]]:
    """What an earlier arm of the same lineage said of the same rows; nothing where it was not asked."""
    lineage = Lineage.of(job.store, job.inputs[arm], arm)
    steps = [*Evaluations.of(job.store, job.run).of_arm(before, lineage), job.step.id]
    for step in reversed(steps):
        file = _folder(job, step) / _file_name(before)
        try:
            kept = json.loads(file.read_text())
            theirs = _DISTRIBUTIONS.validate_python(kept["distributions"])
        except (OSError, ValueError, KeyError, TypeError, ValidationError):
            continue
        if kept.get("rows") == rows.sha256:
            return theirs
    return []


def _folder(job: Job[Request], step: str) -> Path:
    return job.dir.parent / step


def least_divergence(p: Mapping[int, float], q: Mapping[int, float]) -> float:
    """A lower bound of KL(p ‖ q) in nats from the likeliest tokens of both: 0 where both say the same.

    Over three kinds of outcomes: each token that both name, all that p alone names as one, and all others as one.
    Merging outcomes never adds to a divergence (the log sum inequality; Cover & Thomas 2006, "Elements of Information
    Theory", 2.7.1). Of what p alone names, q is taken as that which makes the sum least: none of these tokens can have
    more than the least likely that q names.
    """
    both, alone = p.keys() & q.keys(), p.keys() - q.keys()
    total = math.fsum(math.exp(p[token]) * (p[token] - q[token]) for token in both)
    p_alone = math.fsum(math.exp(p[token]) for token in alone)
    p_rest = max(0.0, 1 - math.fsum(map(math.exp, p.values())))
    q_left = max(_LEAST_CHANCE, 1 - math.fsum(math.exp(q[token]) for token in both))
    most = len(alone) * math.exp(min(q.values(), default=0.0))
    q_alone = min(most, q_left * p_alone / (p_alone + p_rest)) if alone else 0.0
    for chance, other in ((p_alone, q_alone), (p_rest, q_left - q_alone)):
        if chance > 0:
            total += chance * math.log(chance / max(other, _LEAST_CHANCE))
    return max(0.0, total)
