"""The slash commands. Those that only read are the command line's own; here is what differs at a prompt:
a stage takes `field=value` and gives the prompt back as soon as its worker runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tunesmith.agent.commands import fields, parser, queries, render, run_steps
from tunesmith.agent.commands.output import Output
from tunesmith.agent.repl.completion import COMMANDS
from tunesmith.memory.errors import BadInput
from tunesmith.memory.questions import show_run
from tunesmith.memory.records import RUNNING
from tunesmith.tools.pipeline import catalog, launcher
from tunesmith.tools.pipeline.run_step import run_step

if TYPE_CHECKING:
    from tunesmith.agent.repl.shell import Shell


def carry_out(shell: Shell, line: str) -> bool:
    """Carry out `command words`; False to leave. Raises BadInput for an unknown command."""
    command, _, words = line.partition(" ")
    if command in ("quit", "exit"):
        return False
    if command in catalog.BY_NAME:
        stage(shell, command, words.strip())
    elif command in _OWN:
        _OWN[command](shell, words.strip())
    elif command in queries.COMMANDS or command == "suite":
        as_command_line(shell, [command, *fields.split_words(words)])
    else:
        near = parser.nearest(command, [*catalog.BY_NAME, *COMMANDS])
        raise BadInput(f"no command /{command}; {f'did you mean /{near}?' if near else '/help lists them'}")
    return True


def stage(shell: Shell, name: str, words: str) -> None:
    """Price a stage, ask, and leave it to its worker; the monitor tells its end."""
    if words in ("--help", "-h"):
        return help_(shell, name)
    entry = catalog.BY_NAME[name]
    request = run_steps.step_request(name, fields.of_words(words, entry.load().request))
    outcome = run_step(shell.ws, request, shell.approver, follow=False)
    if not entry.expensive:
        shell.show(render.result_table(outcome.done()))
    elif outcome.declined:
        shell.say(f"{name} ({outcome.step.id}) was declined; nothing was started")
    return None


def as_command_line(shell: Shell, argv: list[str]) -> None:
    """Carry out a reading command just as the command line would."""
    try:
        args, _ = parser.parse(argv)
    except SystemExit:  # --help has printed itself
        return
    out = Output(console=shell.main_console())
    if args.command == "suite":
        queries.suite(args, out)
    else:
        queries.COMMANDS[args.command](args, shell.settings, shell.store, out)


def run(shell: Shell, words: str) -> None:
    """`/run R`."""
    newest = shell.store.newest_run()
    if not words and newest is None:
        raise BadInput("there is no run yet; /base opens one, /demo runs the whole arc")
    shell.show(render.run_table(show_run(shell.store, words or (newest.id if newest else ""))))


def continue_(shell: Shell, words: str) -> None:
    """`/continue R`."""
    if not words:
        raise BadInput("/continue needs a run, such as /continue r1; /runs lists them")
    shell.start_arc(run_steps.stored_plan(shell.store, words), resume_run=words)


def demo(shell: Shell, words: str) -> None:
    """`/demo [--fast]`."""
    if words not in ("", "--fast"):
        raise BadInput(f"/demo takes --fast or nothing, not {words!r}")
    shell.start_arc(run_steps.demo_plan(fast=bool(words)))


def attach(shell: Shell, words: str) -> None:
    """`/attach S`: a bar; Ctrl-C lets go of it. Without a step: the one at work."""
    step = words or _the_running(shell)
    if not follow(shell, step):
        shell.say(f"let go of {step}; it goes on. /attach {step} follows it again")


def follow(shell: Shell, step: str) -> bool:
    """A bar until the step ends, whose end is told then; False for Ctrl-C, which lets it go on."""
    shell.bar_console = shell.main_console()
    out = Output(console=shell.bar_console)
    try:
        code = queries.follow(shell.store, step, out)
    finally:
        shell.bar_console = None
    if code != run_steps.LET_GO:
        shell.monitor.told(shell.store.step(step))
    return code != run_steps.LET_GO


def _the_running(shell: Shell) -> str:
    running = shell.store.steps(status=RUNNING)
    if len(running) != 1:
        at_work = f"{len(running)} steps are at work; name one of them" if running else "no step is at work"
        raise BadInput(f"{at_work}; /jobs lists them")
    return running[0].id


def stop(shell: Shell, words: str) -> None:
    """`/stop S`: asks first, for what is stopped has cost its time."""
    step = shell.store.step(words or _the_running(shell))
    if step.status != RUNNING:
        raise BadInput(f"{step.id} does not run: it is {step.status}")
    if not shell.confirm(f"End {step.stage} ({step.id}) at {step.note or 'work'}?"):
        shell.say(f"{step.id} goes on")
        return
    ended = launcher.stop(shell.store, step.id)
    shell.store.announce([step.id])
    shell.monitor.told(ended)


def sql(shell: Shell, words: str) -> None:
    """`/sql SELECT …`: the rest of the line is the question, quotes and all."""
    as_command_line(shell, ["runs", "sql", words])


def help_(shell: Shell, words: str) -> None:
    """`/help`, `/help train`."""
    name = words.removeprefix("/")
    if name in catalog.BY_NAME:
        model = catalog.BY_NAME[name].load().request
        shell.show(render.fields_table(name, catalog.BY_NAME[name].summary, model))
        return
    stages = [[f"/{e.name}", e.summary + ("" if e.expensive else " (free)")] for e in catalog.STAGES]
    others = [[f"/{command}", text] for command, text in COMMANDS.items()]
    shell.show(render.rows_table(["command", "what it does"], [*stages, *others], exact=True))
    shell.say(
        "Stages take fields: /train lora_rank=8 epochs=2; /help train lists them. Nothing expensive starts unasked."
    )


def new(shell: Shell, words: str) -> None:
    """`/new`: a fresh conversation; the old one is kept."""
    shell.say(f"a new conversation: {shell.talk.new()}")


def resume(shell: Shell, words: str) -> None:
    """`/resume [ID]`: go on with an earlier conversation."""
    shell.say(f"going on with {shell.talk.resume(words)}")
    shell.talk.tell_description()


def undo(shell: Shell, words: str) -> None:
    """`/undo`: take the newest turn of the conversation back; what it started is not undone."""
    shell.say(f"taken back: {shell.talk.undo()}")
    shell.talk.tell_description()


def compact(shell: Shell, words: str) -> None:
    """`/compact`: a short account stands for the turns so far."""
    shell.say(f"compacted to {len(shell.talk.compact())} characters")


def export(shell: Shell, words: str) -> None:
    """`/export [FILE]`: the conversation as Markdown."""
    shell.say(f"written: {shell.talk.export(words)}")


def conversations(shell: Shell, words: str) -> None:
    """`/conversations`."""
    rows = [[name, queries.date(at), first] for name, at, first in shell.talk.conversations()]
    shell.show(render.rows_table(["conversation", "last word", "began with"], rows, exact=True))


_OWN: dict[str, Callable[[Shell, str], None]] = {
    "run": run,
    "continue": continue_,
    "demo": demo,
    "attach": attach,
    "stop": stop,
    "sql": sql,
    "help": help_,
    "new": new,
    "resume": resume,
    "undo": undo,
    "compact": compact,
    "export": export,
    "conversations": conversations,
}
