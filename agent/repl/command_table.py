"""The slash commands beside the stages, with a word on each: for /help, for completion, for the nearest right name."""

from __future__ import annotations

from tunesmith.agent.commands.same_words import SAME_AS

TOPICS: dict[str, tuple[str, ...]] = {
    "talk": (
        "Say what a model should learn, or ask: “how did r1 go?”, “which cases did the adapter lose?”, “why rank 16?”.",
        "“show all” gives the page behind an answer, “and in r1?” asks the same of another run, “why?” asks on.",
        "Several things at once: “how long did training take, and then evaluate the merged model”.",
    ),
    "describe": (
        "A new behaviour is asked for in four parts: when, what, never, and examples as MESSAGE => ANSWER.",
        "Your words are kept letter for letter. “what did I say so far?”, “back”, “change the second example to …”,",
        "“never: …” and “drop it” work at any time, a question on the side keeps the place; “edit” opens $EDITOR.",
    ),
    "keys": (
        "Up and Ctrl-R search what was typed before, Tab completes, Alt-Enter begins a new line, a paste is never sent",
        "half. Ctrl-C clears the line and lets go of a bar, twice on an empty line it "
        "leaves; Ctrl-D leaves. Jobs go on.",
    ),
}
"""What `/help TOPIC` says."""

COMMANDS = {
    "runs": "all runs, or `/runs show R`, `/runs sql SELECT …`",
    "run": "carry out a written plan: /run plan.yaml",
    **{word: same.summary for word, same in SAME_AS.items()},
    "jobs": "steps at work, and those that wait for a yes",
    "attach": "follow a step's progress; Ctrl-C lets go of it",
    "stop": "end a step (asks first)",
    "ask": "put a message to the model that was made, beside its base: /ask Where is my parcel?",
    "rate": "judge answers of the base and the newest arm, unlabelled, two keys each: /rate r1",
    "compare": "two arms of a run: /compare r1 --arms base,adapter",
    "explain": "what a run's records say of it, and the next step: /explain r1",
    "report": "write a run's report: /report r1",
    "more": "go on with a long page",
    "why": "everything that the newest answer was read from",
    "serve": "serve an arm or a run, such as /serve r1; alone: what is served; `/serve stop` ends it",
    "sql": "a read-only question: /sql SELECT … FROM v_steps",
    "demo": "every stage on the bundled model; --fast for the short one",
    "suite": "check suites, or grade stored outputs",
    "new": "a fresh conversation; the old one is kept",
    "conversations": "all conversations, the newest first; `/conversations resume ID` goes on with one",
    "undo": "take the newest turn of the conversation back",
    "export": "write the conversation as Markdown",
    "doctor": "what this machine and what is installed can do",
    "help": "this list, the fields of a stage (/help train), or a topic (/help keys)",
    "quit": "leave; jobs go on",
}
