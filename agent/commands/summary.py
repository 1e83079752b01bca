"""What came of a run, in numbers: every figure is read from the store, at the moment it is asked for."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType

from tunesmith.agent.commands import render
from tunesmith.memory.errors import TunesmithError
from tunesmith.memory.json_values import picked
from tunesmith.memory.records import DONE
from tunesmith.memory.store import Store
from tunesmith.tools.core.format import duration, size
from tunesmith.tools.pipeline import catalog

if TYPE_CHECKING:
    from tunesmith.tools.evaluation.comparison import BlockScore, Comparison
    from tunesmith.tools.evaluation.evidence import Evidence
    from tunesmith.tools.report.page import WrittenReport

Scores = Mapping[str, Mapping[str, "BlockScore"]]
"""Block → arm → what it passed."""


@dataclass(frozen=True, slots=True)
class RunSummary:
    """What came of a run: pass rates, each arm against the base and the hop before it, times, the endpoint."""

    run: str
    name: str
    status: str
    blocks: Scores
    comparisons: Sequence[Comparison]
    seconds: float
    estimated_seconds: float
    peak_rss_bytes: int
    endpoint: Mapping[str, object] | None
    """The newest deployment: what its step said of it, with the address and key file of this moment, and
    `served_now`."""
    refused: str = ""
    """What a gate refused, in the words that follow the status."""
    evidence: Sequence[Evidence] = ()
    """The verdict on each trained arm against the base."""
    report: Path | None = None
    """The page that was written; None where none was, or none was asked for."""
    verdict: str = ""
    """The report's headline."""

    def to_json(self) -> dict[str, object]:
        """The shape that scripts read."""
        return {
            **picked(self, "run", "name", "status"),
            "blocks": {
                block: {arm: {**asdict(score), "rate": score.rate} for arm, score in scores.items()}
                for block, scores in self.blocks.items()
            },
            "comparisons": [compared.to_json() for compared in self.comparisons],
            "claims": {one.arm: one.verdict.word for one in self.evidence},
            **picked(self, "seconds", "estimated_seconds", "peak_rss_bytes", "endpoint"),
            "report": str(self.report) if self.report else None,
            "verdict": self.verdict or None,
        }


def summarise(store: Store, run: str) -> RunSummary:
    """Read a run's summary, without its report."""
    record = store.run(run)
    steps = store.steps(run)
    compared, refusal = comparisons(store, run), store.refusal(run)
    return RunSummary(
        run=run,
        name=record.name,
        status=record.status,
        blocks=pass_rates(compared),
        comparisons=compared,
        seconds=sum(step.seconds or 0.0 for step in steps),
        estimated_seconds=sum(step.estimated_seconds for step in steps if step.status == DONE),
        peak_rss_bytes=max((step.peak_rss_bytes or 0 for step in steps), default=0),
        endpoint=endpoint(store, run),
        refused=refusal.brief if refusal else "",
        evidence=claims(store, run),
    )


def comparisons(store: Store, run: str) -> list[Comparison]:
    """Every evaluated arm against the base, then every hop of the chain after it."""
    from tunesmith.tools.evaluation.pairing import Evaluations, chain_pairs, compare_run

    arms = Evaluations.of(store, run).arms
    pairs = [("base", arm) for arm in arms if arm != "base" and "base" in arms]
    pairs += [pair for pair in chain_pairs(arms) if pair[0] != "base"]
    compared = []
    for a, b in pairs:
        with contextlib.suppress(TunesmithError):  # a suite that cannot be read any more
            compared.append(compare_run(store, run, a, b))
    return compared


def claims(store: Store, run: str) -> list[Evidence]:
    """The verdict on every trained arm that was evaluated."""
    from tunesmith.tools.evaluation.evidence import evidence_of
    from tunesmith.tools.evaluation.pairing import Evaluations

    arms = [arm for arm in Evaluations.of(store, run).arms if arm not in ("base", "prompted")]
    return [evidence_of(store, run, arm) for arm in arms]


def pass_rates(compared: Sequence[Comparison]) -> Scores:
    """What each arm passed of each block, by the first comparison that holds the arm."""
    scores: dict[str, dict[str, BlockScore]] = {}
    for comparison in compared:
        for name, block in comparison.blocks.items():
            for arm in comparison.arms:
                scores.setdefault(name, {}).setdefault(arm, block.score(arm))
    return scores


def endpoint(store: Store, run: str) -> Mapping[str, object] | None:
    """What the run's newest deployment reported (url, model, key file, first answer), and whether it is up now.

    Up is the model and not the address: on a port of its own a later deployment answers at the same one. What is up
    is told with its address and key file of this moment.
    """
    deployed = [step for step in store.steps(run, status=DONE) if step.stage == catalog.maker_of("deployment")]
    if not deployed:
        return None
    from tunesmith.tools.serving import servers

    step = deployed[-1]
    deployment = next((a for a in store.artifacts(run, "deployment") if a.step == step.id), None)
    server = servers.serving_now(store.home, str(deployment.meta.get("serves"))) if deployment else None
    now = {"url": server.url, "key_file": str(server.key_file)} if server else {}
    return {"step": step.id, **step.report, **now, "served_now": server is not None}


def summary_view(summary: RunSummary) -> RenderableType:
    """The summary for a terminal."""
    views: list[RenderableType] = []
    refused = f", {summary.refused}" if summary.refused else ""
    if summary.blocks:
        views.append(render.rates_table(summary.blocks))
        views += [render.hop_line(compared) for compared in summary.comparisons]
    views += [render.plain(f"claim for {one.arm}: {one.verdict.sentence}") for one in summary.evidence[-1:]]
    took, estimated = duration(summary.seconds), duration(summary.estimated_seconds)
    peak = f", peak memory of a worker {size(summary.peak_rss_bytes)}" if summary.peak_rss_bytes else ""
    views.append(render.plain(f"{summary.run} {summary.status}{refused}: took {took}, estimated {estimated}{peak}"))
    if summary.verdict:
        views.append(render.plain(summary.verdict))
    if (served := summary.endpoint) and served["served_now"]:
        views.append(render.plain(f"served now: {served.get('model')} at {served.get('url')}"))
        views.append(render.plain(f"its key: {served.get('key_file')}; `tunesmith serve stop` ends it"))
    if summary.report:
        views.append(render.plain(f"report: {summary.report}"))
    return Group(*views)


def conclude(store: Store, run: str, say: Callable[[str], None]) -> RunSummary:
    """The summary of a run that ended, its report written; a report that fails never hides what the run came to."""
    summary = summarise(store, run)
    try:
        written = write_run_report(store, run)
    except Exception as error:  # the run is done, and its result is told without one
        say(f"no report was written: {type(error).__name__}: {error}")
        return summary
    return replace(summary, report=written.path, verdict=written.verdict)


def write_run_report(store: Store, run: str, name: str | None = None, *, force: bool = False) -> WrittenReport:
    """Write the run's HTML report: to runs/RUN/report.html, or to the file that its user names.

    Raises BadInput where nothing can be written there, or without `force` something is there.
    """
    from tunesmith.tools.report.page import write_report

    if name is not None:
        return write_report(store, run, name, force=force)
    folder = store.home / "runs" / run
    folder.mkdir(parents=True, exist_ok=True)
    return write_report(store, run, str(folder / "report.html"), force=True)
