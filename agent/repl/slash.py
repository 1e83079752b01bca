"""The slash commands. Those that only read are the command line's own; here is what differs at a prompt:
a stage takes `field=value` and gives the prompt back as soon as its worker runs.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from tunesmith.agent.commands import fields, parser, queries, render, run_steps, theme
from tunesmith.agent.commands.layout import Prose, prose
from tunesmith.agent.commands.output import Output
from tunesmith.agent.commands.parser_errors import nearest
from tunesmith.agent.commands.same_words import SAME_AS
from tunesmith.agent.commands.suites import suite
from tunesmith.agent.queries.answer import day
from tunesmith.agent.repl.command_table import COMMANDS, TOPICS
from tunesmith.memory.conversations import Conversations
from tunesmith.memory.errors import BadInput, NotFound
from tunesmith.memory.records import RUNNING
from tunesmith.tools.core.plain_file import write_private_text
from tunesmith.tools.pipeline import catalog, launcher, plan_file
from tunesmith.tools.pipeline.run_step import run_step
from tunesmith.tools.pipeline.workspace import StepRequest

if TYPE_CHECKING:
    from tunesmith.agent.repl.shell import Shell


def carry_out(screen: Shell, line: str) -> bool:
    """Carry out `command words`; False to leave. Raises BadInput for an unknown command."""
    command, _, words = line.partition(" ")
    if command in SAME_AS and command not in _OWN:
        (command, *more_), words = SAME_AS[command].words, words
        words = " ".join([*more_, words])
    if command in ("quit", "exit"):
        return False
    if command in catalog.BY_NAME:
        stage(screen, command, words.strip())
    elif command in _OWN:
        _OWN[command](screen, words.strip())
    elif command in queries.COMMANDS or command == "suite":
        as_command_line(screen, [command, *fields.split_words(words)])
    else:
        near = nearest(command, [*catalog.BY_NAME, *COMMANDS])
        raise BadInput(f"no command /{command}; {f'did you mean /{near}?' if near else '/help lists them'}")
    return True


def stage(screen: Shell, name: str, words: str) -> None:
    """Price a stage, ask, and leave it to its worker; the monitor tells its end."""
    if words in ("--help", "-h"):
        return help_(screen, name)
    return _step(screen, StepRequest.given(name, fields.of_words(words, catalog.BY_NAME[name].load().request)))


def _step(screen: Shell, request: StepRequest) -> None:
    entry = catalog.BY_NAME[request.stage]
    if entry.only_looks:
        screen.show(render.result_table(run_steps.look(screen.ws, request)["result"]))
        return
    outcome = run_step(screen.ws, request, screen.approver, follow=False)
    if not entry.asks(outcome.step.request):
        screen.show(render.result_table(outcome.done().report))
    elif outcome.declined:
        again = f"/{entry.name} shows its price again"
        screen.say(f"{entry.name} ({outcome.step.id}) was declined; nothing was started. {again}")
    return


def as_command_line(screen: Shell, argv: list[str]) -> None:
    """Carry out a reading command just as the command line would."""
    try:
        args, _ = parser.parse(argv)
    except SystemExit:  # --help has printed itself
        return
    out = Output(console=screen.main_console(), page=screen.page)
    if args.command == "suite":
        suite(args, out)
    else:
        queries.COMMANDS[args.command](args, screen.settings, screen.store, out)


def run(screen: Shell, words: str) -> None:
    """`/run PLAN.yaml` carries it out; `/run R`, which names a run, shows that."""
    named = fields.split_words(words)
    if named[:1] == ["--resume"]:
        return resume_run(screen, " ".join(named[1:]))
    if not named or words in {one.id for one in screen.store.runs()}:
        return as_command_line(screen, ["runs", "show", *named])
    if len(named) > 1:
        raise BadInput(f"/run takes one plan, not {words!r}; put a name with spaces in quotes")
    screen.start_plan(run_steps.written_plan(named[0], screen.store, screen.say))
    return None


def resume_run(screen: Shell, words: str) -> None:
    """`/resume R`: go on with that run, else with the newest."""
    name = words or run_steps.newest_run(screen.store)
    screen.start_plan(run_steps.stored_plan(screen.store, name), resume_run=name)


def serve(screen: Shell, words: str) -> None:
    """`/serve`, `/serve status`, `/serve stop`; `/serve WHAT` is a step of the stage that serves."""
    # At the prompt a field may come as `port=8099`, which the command line would take for WHAT.
    typed = [f"--{word}" if re.match(r"[a-z_]+=", word) else word for word in fields.split_words(words)]
    if not {"-h", "--help"} & {*typed}:
        args, rest = parser.parse(["serve", *typed])
        if args.command != "serve":
            return _step(screen, run_steps.stage_request(args, rest, screen.store))
    return as_command_line(screen, ["serve", *typed])


def demo(screen: Shell, words: str) -> None:
    """`/demo [--fast] [--on ray]`."""
    bare, there, on = words.partition("--on ")
    if bare.strip() not in ("", "--fast") or (there and on.strip() not in ("here", "ray")):
        raise BadInput(f"/demo takes --fast, --on ray, both, or nothing, not {words!r}")
    screen.start_plan(plan_file.placed(run_steps.demo_plan(fast=bool(bare.strip())), on.strip()))


def attach(screen: Shell, words: str) -> None:
    """`/attach S`: a bar; Ctrl-C lets go of it. Without a step: the one at work."""
    step = words or _the_running(screen)
    if not screen.follow(step):
        screen.say(f"let go of {step}; it goes on. /attach {step} follows it again")


def _the_running(screen: Shell) -> str:
    running = screen.store.steps(status=RUNNING)
    if len(running) != 1:
        at_work = f"{len(running)} steps are at work; name one of them" if running else "no step is at work"
        raise BadInput(f"{at_work}; /jobs lists them")
    return running[0].id


def stop(screen: Shell, words: str) -> None:
    """`/stop S`: asks first, for what is stopped has cost its time."""
    step = screen.store.step(words or _the_running(screen))
    if step.status != RUNNING:
        raise BadInput(f"{step.id} does not run: it is {step.status}")
    if not screen.confirm(f"End {step.stage} ({step.id}) at {step.note or 'work'}?"):
        screen.say(f"{step.id} goes on")
        return
    ended = launcher.stop(screen.store, step.id)
    screen.store.announce([step.id])
    screen.monitor.announce(ended)


def sql(screen: Shell, words: str) -> None:
    """`/sql SELECT …`: the rest of the line is the question, quotes and all."""
    as_command_line(screen, ["runs", "sql", words])


def ask(screen: Shell, words: str) -> None:
    """`/ask [--arms A,B] [--run R] [--as-is] TEXT`: the text is the rest of the line, quotes and all."""
    from tunesmith.agent.commands.ask import ask_line

    out = Output(console=screen.main_console(), page=screen.page)
    ask_line(words, screen.settings, screen.store, out, screen.approver)


def rate(screen: Shell, words: str) -> None:
    """`/rate [R]`, with the options of the command line: a person judges answers of two models."""
    from tunesmith.agent.commands.rate import rate as rate_

    args, _ = parser.parse(["rate", *fields.split_words(words)])
    rate_(args, screen.settings, screen.store, Output(console=screen.main_console(), page=screen.page), screen.approver)


def more(screen: Shell, words: str) -> None:
    """`/more`: what did not fit on the screen."""
    if words or not screen.more():
        raise BadInput("/more takes no words" if words else "nothing is left of a page; /more goes on with a long one")


def why(screen: Shell, words: str) -> None:
    """`/why`: everything that the newest answer was read from. Raises NotFound where it read nothing."""
    reads = screen.talk.chat().deps.reads
    if not reads.results:
        raise NotFound("the newest answer read nothing from the records; ask about a run, a step or a case first")
    screen.page(reads.page())


def help_(screen: Shell, words: str) -> None:
    """`/help`, `/help train`, `/help keys`. Raises BadInput for neither a stage nor a topic."""
    name = words.removeprefix("/")
    if name in catalog.BY_NAME:
        model = catalog.BY_NAME[name].load().request
        screen.page(render.fields_table(name, catalog.BY_NAME[name].summary, model))
        return
    if name in TOPICS:
        for line in TOPICS[name]:
            screen.say(line)
        return
    if name:
        near = nearest(name, [*catalog.BY_NAME, *TOPICS])
        raise BadInput(
            f"no help on {name}; {f'did you mean /help {near}? ' if near else ''}topics: {', '.join(TOPICS)}"
        )
    screen.page(help_page())


def help_page() -> RenderableType:
    """What can be said, every command in groups, and the topics."""
    stages = [[f"/{e.name}", e.summary + ("" if e.expensive else " (free)")] for e in catalog.STAGES]
    others = [[f"/{command}", text] for command, text in COMMANDS.items()]
    return Group(
        prose("I fine-tune a language model with you: say what it should learn, or ask about a run."),
        prose(f"More by topic, such as `/help keys`: {', '.join(TOPICS)}. `/help train` lists a step's fields."),
        _commands("the screen", others),
        _commands("steps, with fields such as `/train lora_rank=8 epochs=2`; nothing expensive starts unasked", stages),
    )


def _commands(heading: str, rows: Sequence[Sequence[str]]) -> RenderableType:
    cells = [[Text(name, style=theme.COMMAND), text] for name, text in rows]
    return Group(Prose(theme.coloured(heading + ":")), render.rows_table(["", ""], cells, exact=True))


def new(screen: Shell, words: str) -> None:
    """`/new`: a fresh conversation; the old one is kept."""
    chat = screen.talk.chat()
    chat.switch(chat.conversations.new())
    screen.say(f"a new conversation: {chat.id}")


def resume(screen: Shell, words: str) -> None:
    """`/resume R`: go on with a run, else with the newest; with a conversation where that is what was named."""
    if words in {name for name, _, _ in Conversations(screen.store).list()} or re.fullmatch(r"c[\d-]\S*", words):
        return resume_conversation(screen, words)
    return resume_run(screen, words)


def resume_conversation(screen: Shell, words: str) -> None:
    """`/conversations resume [ID]`: go on with an earlier conversation, its plan and its description; else with the
    newest. Raises NotFound."""
    chat = screen.talk.chat()
    known = [name for name, _, _ in chat.conversations.list()]
    wanted = words or next((name for name in known if name != chat.id), "")
    if wanted not in known:
        raise NotFound(f"no conversation {wanted!r}; /conversations lists them")
    chat.switch(wanted)
    screen.say(f"going on with {wanted}")
    screen.talk.tell_description()


def undo(screen: Shell, words: str) -> None:
    """`/undo`: take the newest turn of the conversation back; what it started is not undone."""
    screen.say(f"taken back: {screen.talk.chat().undo()}")
    screen.talk.tell_description()


def export(screen: Shell, words: str) -> None:
    """`/export [FILE] [--force]`: the conversation as Markdown. Raises BadInput for a file that is there already."""
    names = [word for word in fields.split_words(words) if word != "--force"]
    if len(names) > 1:
        raise BadInput(f"/export takes one file, not {' '.join(names)!r}; put a name with spaces in quotes")
    chat = screen.talk.chat()
    sections = [f"# Conversation {chat.id}\n"]
    for turn in chat.conversations.load(chat.id, whole=True).turns:
        asked_at = time.strftime("%F %H:%M", time.localtime(turn.at))
        sections.append(f"**you** ({asked_at}): {turn.prompt}\n\n**tunesmith**: {turn.reply}\n")
    file = names[0] if names else f"tunesmith-{chat.id}.md"
    text, force = "\n".join(sections), "--force" in fields.split_words(words)
    screen.say(f"written: {write_private_text(file, text, force=force)}")


def conversations(screen: Shell, words: str) -> None:
    """`/conversations`; `/conversations resume [ID]` goes on with one."""
    action, _, rest = words.partition(" ")
    if action == "resume":
        return resume_conversation(screen, rest.strip())
    if words not in ("", "list"):
        raise BadInput(f"/conversations takes list, or resume ID, not {words!r}")
    rows = [[name, day(at), first] for name, at, first in Conversations(screen.store).list()]
    screen.show(render.rows_table(["conversation", "last word", "began with"], rows, exact=True))
    return None


_OWN: dict[str, Callable[[Shell, str], None]] = {
    "run": run,
    "continue": resume_run,
    "serve": serve,
    "demo": demo,
    "attach": attach,
    "stop": stop,
    "sql": sql,
    "ask": ask,
    "rate": rate,
    "more": more,
    "why": why,
    "help": help_,
    "new": new,
    "resume": resume,
    "undo": undo,
    "export": export,
    "conversations": conversations,
    "conversation": conversations,
}
