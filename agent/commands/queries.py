"""Commands that read: suites, comparisons, runs, jobs, what is served, reports, the doctor."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace

from rich.console import Group

from tunesmith.agent.commands import render
from tunesmith.agent.commands.output import Output
from tunesmith.agent.commands.recover import left_behind, recover
from tunesmith.agent.commands.run_steps import LET_GO, newest_run
from tunesmith.agent.commands.settings import Settings
from tunesmith.agent.commands.summary import summarise, summary_view, write_run_report
from tunesmith.agent.queries.answer import day
from tunesmith.memory.errors import BadInput
from tunesmith.memory.json_values import picked
from tunesmith.memory.question_process import ask_in_process
from tunesmith.memory.questions import show_run
from tunesmith.memory.records import APPROVED, DONE, PLANNED, RUNNING, Step
from tunesmith.memory.store import Store
from tunesmith.tools.core.format import duration
from tunesmith.tools.core.plain_file import writable
from tunesmith.tools.pipeline import launcher
from tunesmith.tools.pipeline.start_step import follow_step
from tunesmith.tools.pipeline.workspace import Workspace

Command = Callable[[argparse.Namespace, Settings, Store, Output], int]


def run_of(args: argparse.Namespace, store: Store, out: Output) -> str:
    """The run that a command names, else the newest, which is said. Raises NotFound."""
    if args.run is not None:
        return store.run(args.run).id
    newest = store.run(newest_run(store))
    out.say(f"{newest.id} ({newest.name}), the newest run")
    return newest.id


def compare(args: argparse.Namespace, settings: Settings, store: Store, out: Output) -> int:
    """`compare [RUN] --arms A,B`: 0; 4 where they may not be compared, or a gated block got worse, over a hop too."""
    from tunesmith.agent.commands.comparison_view import comparison_view
    from tunesmith.tools.core.format import count
    from tunesmith.tools.data.held_out import account
    from tunesmith.tools.evaluation.blind import open_blind
    from tunesmith.tools.evaluation.compare import compare_with_hops
    from tunesmith.tools.evaluation.pairing import each_pair_once

    arms = [arm.strip() for arm in args.arms.split(",")]
    if len(arms) != 2:
        raise BadInput(f"--arms takes two different arms, such as base,adapter; it was {args.arms!r}")
    run = run_of(args, store, out)
    if args.open_blind:
        opened = open_blind(store, run, account())
        out.say(f"{run}: {count(opened, 'blind case')} opened; what is changed after they were read needs new ones")
    with each_pair_once():
        compared = compare_with_hops(store, run, *arms)
        view = list(comparison_view(store, compared, whole=args.all, in_repl=out.page is not None))
    out.document(compared.to_json(), Group(*view))
    return 4 if compared.broken_gates else 0  # as of a gate that refuses, for scripts


def runs(args: argparse.Namespace, settings: Settings, store: Store, out: Output) -> int:
    """`runs list`, `runs show [RUN]`, `runs recover [RUN…]`, `runs sql "SELECT …"`."""
    if args.action == "show":
        run = show_run(store, run_of(args, store, out))
        out.document(run, render.run_table(run))
    elif args.action == "recover":
        return recover(args, store, out)
    elif args.action == "sql":
        answer = ask_in_process(store.path, args.query, home=store.home)
        document = {
            "columns": answer.columns,
            "rows": [dict(zip(answer.columns, row, strict=True)) for row in answer.rows],
            "truncated": answer.truncated,
        }
        out.document(document, render.rows_table(answer.columns, answer.rows, exact=True))
        if answer.truncated:
            out.say(f"only the first {len(answer.rows)} rows are shown; narrow the question")
    else:
        document = {"runs": [_run_line(store, run.id) for run in store.runs()]}
        out.document(document, render.runs_table(store, day))
        if not store.is_new and (left := left_behind(store)):  # else its opening has said it
            out.say(left)
    return 0


def _run_line(store: Store, run: str) -> dict[str, object]:
    record, counts, refusal = store.run(run), store.step_counts(run), store.refusal(run)
    return {
        "run": run,
        **picked(record, "name", "status"),
        "refused": refusal.reason if refusal else None,
        **picked(record, "created_at", "finished_at"),
        "steps": counts.total,
        "steps_done": counts.done,
        "seconds": sum(step.seconds or 0 for step in store.steps(run)),
    }


def jobs(args: argparse.Namespace, settings: Settings, store: Store, out: Output) -> int:
    """`jobs list`, `jobs attach STEP`, `jobs stop STEP`."""
    if args.action == "attach":
        return attach(store, args.step, out)
    if args.action == "stop":
        step = launcher.stop(store, args.step)
        store.announce([step.id])
        out.document(job_line(step), render.step_end(step))
        return 0
    lines = [job_line(step) for status in (RUNNING, APPROVED, PLANNED) for step in store.steps(status=status)]
    columns = ["step", "run", "stage", "status", "done", "total", "note", "eta_seconds", "plan_hash"]
    rows = [[str(line[c])[:12] if c == "plan_hash" else line[c] for c in columns] for line in lines]
    out.document({"jobs": lines}, render.rows_table(columns, rows) if lines else "no step runs, and none waits")
    return 0


def job_line(step: Step) -> dict[str, object]:
    """A step at work or waiting, as `jobs list` shows it."""
    elapsed_s = time.time() - step.started_at if step.started_at and not step.ended else 0.0
    running = step.status == RUNNING
    eta = render.eta_seconds(elapsed_s, step.total, step.estimated_seconds) if running else None
    return {
        "step": step.id,
        **picked(step, "run", "stage", "on", "status"),
        "pid": step.pid if running else None,
        **picked(step, "done", "total", "note"),
        "elapsed_seconds": elapsed_s,
        "eta_seconds": eta,
        **picked(step, "plan_hash", "error"),
    }


def attach(store: Store, step: str, out: Output) -> int:
    """Follow a step to its end and show it. 0 when it was done, else 1."""
    code = follow(store, step, out)
    if code == LET_GO:
        out.say(f"let go of {step}; it goes on. `tunesmith jobs attach {step}` follows it again")
    else:
        ended = store.step(step)
        out.document(job_line(ended), render.step_end(ended))
    return code


def follow(store: Store, step: str, out: Output) -> int:
    """A bar until the step ends; Ctrl-C lets go of it (LET_GO) and never stops it. 0 when it was done, else 1."""
    try:
        ended = follow_step(Workspace(store, None, out.show_progress), step)
    except KeyboardInterrupt:  # of the watching alone: the step goes on
        return LET_GO
    finally:
        out.let_go()
    return 0 if ended.status == DONE else 1


def serve(args: argparse.Namespace, settings: Settings, store: Store, out: Output) -> int:
    """`serve`, `serve status` and `serve stop`; `serve WHAT` is a step of the stage that serves."""
    from tunesmith.agent.commands import served_models

    if args.action == "stop":
        stopped = served_models.stop(store)
        words = f"stopped {len(stopped)} of tunesmith's servers" if stopped else "nothing was served"
        out.document({"stopped": stopped}, words)
        return 0
    lines = served_models.status(store)
    columns = ["role", "url", "model", "healthy", "pid", "run", "artifact", "key_file"]
    rows = [[line[column] if column != "role" else _role(line) for column in columns] for line in lines]
    could = [] if lines or args.action else served_models.could_serve(store)
    document = {"servers": lines, **({"could_serve": could} if could else {})}
    if lines:
        down = [f"{line['model']} is down: {line['down']}" for line in lines if line["down"]]
        out.document(document, Group(render.rows_table(columns, rows), *map(render.plain, down)))
    else:
        prefix = "/" if out.page else "tunesmith "
        how = [served_models.how_to_serve(run, prefix) for run in could]
        out.document(document, render.plain("\n".join(["nothing is served", *how])))
    return 0


def _role(line: Mapping[str, object]) -> str:
    """What a server is for, and when it ends where nobody uses it."""
    left = line["ends_in_seconds"]
    if isinstance(left, float):
        return f"{line['role']}, ends in {duration(left)}"
    again = f", restarted {counted}" if (counted := _times(line["restarts"])) else ""
    return f"{line['role']}{', down' if line['down'] else ''}{again}"


def _times(restarts: object) -> str:
    return {0: "", 1: "once"}.get(int(str(restarts)), f"{restarts} times")


def report(args: argparse.Namespace, settings: Settings, store: Store, out: Output) -> int:
    """`report [RUN] [-o FILE]`: a page to read."""
    from tunesmith.tools.evaluation.pairing import each_pair_once

    if args.output is not None:
        writable(args.output, force=args.force)  # said before a page is made that nobody can have
    elif args.force:
        raise BadInput("--force replaces the file of -o; name it, or leave --force out")
    run = run_of(args, store, out)
    with each_pair_once():
        written = write_run_report(store, run, args.output, force=args.force)
        summary = replace(summarise(store, run), report=written.path, verdict=written.verdict)
    out.document(summary.to_json(), summary_view(summary))
    return 0


def explain(args: argparse.Namespace, settings: Settings, store: Store, out: Output) -> int:
    """`explain [RUN]`: findings from the records, each with its evidence and the next priced step; asks no model."""
    from tunesmith.agent.commands.explain import document, view
    from tunesmith.tools.evaluation.pairing import each_pair_once

    ws = settings.workspace(store, out.emit)
    run = run_of(args, store, out)
    with each_pair_once():  # one of the two is wanted: each asks the records for everything
        if out.wants_json:
            out.document(document(ws, run), "")
        else:
            out.document(None, view(ws, run, whole=args.all, in_repl=out.page is not None))
    return 0


def fits(args: argparse.Namespace, settings: Settings, store: Store, out: Output) -> int:
    """`fits MODEL`: what of the whole way would fit, by arithmetic on its config; nothing is downloaded but that.

    Without a model: the bases that are proposed where nobody names one.
    """
    from tunesmith.agent.commands.fits import listed_document, listed_view, view
    from tunesmith.tools.machine.cards import card_of
    from tunesmith.tools.models.find import find_model
    from tunesmith.tools.pipeline.fits import facts_here, fits, fits_of_listed, to_json

    card = card_of(args.card) if args.card else None
    if args.model is None:
        bases = fits_of_listed(facts_here(store, vllm=settings.vllm, card=card))
        out.document(listed_document(bases), listed_view(bases, card))
        return 0
    model, revision = find_model(args.model, args.revision)
    answer = fits(model, facts_here(store, vllm=settings.vllm, card=card), revision=revision)
    out.document(to_json(answer, card), view(answer, card))
    return 0


def doctor(args: argparse.Namespace, settings: Settings, store: Store, out: Output) -> int:
    """`doctor`: this machine, the versions that are installed, the vllm that was found, the driver tried out, what can
    leave this machine and what did. A store that is damaged where no command met it yet is refused.

    `doctor --gpu`: what only a card can say, measured by a step that is asked about.
    """
    if args.gpu or args.approve is not None:
        from tunesmith.agent.commands.gpu_check import gpu_check

        return gpu_check(args, settings, store, out)
    from tunesmith.agent.doctor import examine, examine_driver, examined_view
    from tunesmith.agent.what_leaves import leaving

    store.refuse_damage()
    driver = examine_driver(settings, start=args.driver)
    examination = examine(settings, driver, leaving(settings, store))
    out.document(asdict(examination), examined_view(examination))
    return 0


COMMANDS: dict[str, Command] = {
    "compare": compare,
    "runs": runs,
    "jobs": jobs,
    "serve": serve,
    "report": report,
    "explain": explain,
    "fits": fits,
    "doctor": doctor,
}
