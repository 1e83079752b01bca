"""The slash commands beside the stages, with a word on each: for /help, for completion, for the nearest right name."""

from __future__ import annotations

COMMANDS = {
    "runs": "all runs, or `/runs show R`, `/runs sql SELECT …`",
    "run": "one run: its steps, times, peaks and artifacts",
    "continue": "go on with a run that follows a plan",
    "jobs": "steps at work, and those that wait for a yes",
    "attach": "follow a step's progress; Ctrl-C lets go of it",
    "stop": "end a step (asks first)",
    "compare": "two arms of a run: /compare r1 --arms base,adapter",
    "explain": "what a run's records say of it, and the next step: /explain r1",
    "report": "write a run's report: /report r1",
    "serve": "what is served; `/serve stop` ends it",
    "sql": "a read-only question: /sql SELECT … FROM v_steps",
    "demo": "every stage on the bundled model; --fast for the short one",
    "suite": "check suites, or grade stored outputs",
    "new": "a fresh conversation; the old one is kept",
    "resume": "go on with an earlier conversation",
    "conversations": "all conversations, the newest first",
    "undo": "take the newest turn of the conversation back",
    "compact": "let a short account stand for the turns so far",
    "export": "write the conversation as Markdown",
    "doctor": "what this machine and what is installed can do",
    "help": "this list, or the fields of a stage: /help train",
    "quit": "leave; jobs go on",
}
