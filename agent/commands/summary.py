"""What came of a run, in numbers: every figure is read from the store, at the moment it is asked for."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType

from tunesmith.agent.commands import render
from tunesmith.memory.errors import BadInput, TunesmithError
from tunesmith.memory.records import DONE
from tunesmith.memory.store import Store
from tunesmith.tools.core.stage import ARMS


def summarise(store: Store, run: str) -> dict[str, Any]:
    """Pass rates per block and arm, each arm against the base and against the hop before it, times, the endpoint."""
    record = store.run(run)
    steps = store.steps(run)
    compared = comparisons(store, run)
    return {
        "run": run,
        "name": record.name,
        "status": record.status,
        "blocks": pass_rates(compared),
        "comparisons": compared,
        "seconds": sum(step.seconds or 0.0 for step in steps),
        "estimated_seconds": sum(step.estimated_seconds for step in steps if step.status == DONE),
        "peak_rss_bytes": max((step.peak_rss_bytes or 0 for step in steps), default=0),
        "endpoint": endpoint(store, run),
    }


def comparisons(store: Store, run: str) -> list[dict[str, Any]]:
    """Every evaluated arm against the base, then every hop of the chain of custody, as `compare` prints them."""
    from tunesmith.tools.evaluation.comparison import compare_run

    arms = evaluated_arms(store, run)
    tuned = [arm for arm in arms if arm not in ("base", "prompted")]
    pairs = [("base", arm) for arm in arms if arm != "base" and "base" in arms]
    pairs += list(itertools.pairwise(tuned))
    found = []
    for a, b in pairs:
        with contextlib.suppress(TunesmithError):  # an arm whose evaluation never finished
            found.append(compare_run(store, run, a, b))
    return found


def evaluated_arms(store: Store, run: str) -> list[str]:
    """Arms of a run with stored results, in the order of the arc."""
    held = {row["arm"] for row in store.read("SELECT DISTINCT arm FROM eval_results WHERE run = ?", run)}
    return [arm for arm in ARMS if arm in held]


def pass_rates(compared: list[dict[str, Any]]) -> dict[str, dict[str, dict[str, Any]]]:
    """Block → arm → cases, judged, passed, errors and rate, of the first comparison that holds the arm.

    The rate is of the cases that both arms of that comparison answered: an error is no failure.
    """
    blocks: dict[str, dict[str, dict[str, Any]]] = {}
    for comparison in compared:
        for block, counts in comparison["blocks"].items():
            for arm in comparison["arms"]:
                judged, passed = counts["judged"], counts["passed"][arm]
                rate = passed / judged if judged else None
                entry = {"cases": counts["cases"], "judged": judged, "passed": passed, "rate": rate}
                entry["errors"] = counts["errors"][arm]
                blocks.setdefault(block, {}).setdefault(arm, entry)
    return blocks


def endpoint(store: Store, run: str) -> dict[str, Any] | None:
    """What the run's newest deployment reported (url, model, key file, first answer), and whether it is up now.

    Up is the model and not the address: on a port of its own a later deployment answers at the same one. What is up
    is told with its address and key file of this moment.
    """
    deployed = [step for step in store.steps(run, status=DONE) if step.stage == "deploy"]
    if not deployed:
        return None
    from tunesmith.tools.serving import servers

    step = deployed[-1]
    made = next((a for a in store.artifacts(run, "deployment") if a.step == step.id), None)
    server = servers.serving_now(store.home, str(made.meta.get("serves"))) if made else None
    now = {"url": server.url, "key_file": str(server.key_file)} if server else {}
    return {"step": step.id, **(step.result or {}), **now, "served_now": server is not None}


def summary_view(summary: dict[str, Any]) -> RenderableType:
    """The summary for a terminal."""
    parts: list[RenderableType] = []
    if summary["blocks"]:
        parts.append(render.rates_table(summary["blocks"]))
        parts += [render.hop_line(compared) for compared in summary["comparisons"]]
    took, estimated = render.duration(summary["seconds"]), render.duration(summary["estimated_seconds"])
    peak = f", peak memory of a worker {render.size(summary['peak_rss_bytes'])}" if summary["peak_rss_bytes"] else ""
    parts.append(render.plain(f"{summary['run']} {summary['status']}: took {took}, estimated {estimated}{peak}"))
    if summary.get("verdict"):
        parts.append(render.plain(summary["verdict"]))
    served = summary["endpoint"]
    if served and served["served_now"]:
        parts.append(render.plain(f"served now: {served.get('model')} at {served.get('url')}"))
        parts.append(render.plain(f"its key: {served.get('key_file')}; `tunesmith serve stop` ends it"))
    if summary.get("report"):
        parts.append(render.plain(f"report: {summary['report']}"))
    return Group(*parts)


def conclude(store: Store, run: str, say: Callable[[str], None]) -> dict[str, Any]:
    """The summary of a run that ended, its report written; a report that fails never hides what the run came to."""
    summary = summarise(store, run)
    try:
        path, told = write_run_report(store, run)
        summary |= {"report": str(path), "verdict": told.get("verdict")}
    except Exception as error:
        say(f"no report was written: {type(error).__name__}: {error}")
        summary["report"] = None
    return summary


def write_run_report(store: Store, run: str, path: Path | None = None) -> tuple[Path, dict[str, Any]]:
    """Write the run's HTML report, to runs/RUN/report.html unless told otherwise; its path and its summary.

    Raises BadInput where nothing can be written there.
    """
    from tunesmith.tools.report.page import write_report

    target = path or store.home / "runs" / run / "report.html"
    if target.is_dir():
        raise BadInput(f"{target} is a folder; name the file that the report goes to, such as -o {target}/report.html")
    try:
        return target, write_report(store, run, target)
    except OSError as error:
        raise BadInput(f"cannot write the report {target}: {error.strerror}; name another file with -o") from None
