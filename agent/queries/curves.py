"""Curves of a training: its losses, and what else it measured at every so many steps."""

from __future__ import annotations

from typing import Literal

from tunesmith.agent.queries.base import Query, RunName

Metric = Literal[
    "validation_loss", "train_loss", "tokens_per_second", "learning_rate", "grad_norm", "mean_token_accuracy",
    "rehearsal_kl", "validation_kl",
]  # fmt: skip


class CurveQuery(Query):
    """A curve of a training: losses first and last, whether they fell, tokens a second, gradient norms."""

    kind: Literal["curve"] = "curve"
    metric: Metric = "validation_loss"
    run: RunName = ""
