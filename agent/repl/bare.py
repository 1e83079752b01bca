"""Commands without their slash, as a newcomer types them: `exit`, `demo`, `report r1`, `runs show r1`."""

from __future__ import annotations

import re

_LEAVES = ("exit", "quit", "bye", ":q", "logout")
_ALONE = ("help", "demo", "report", "compare", "explain", "rate", "runs", "jobs", "more")
_OF_A_RUN = re.compile(r"(?:report|compare|explain|rate|runs show|run|continue|resume) r\d+", re.IGNORECASE)
_WHOLE = re.compile(r"(?:runs list|jobs list|demo --fast|serve status|help \w+)", re.IGNORECASE)


def command(line: str, *, page_left: bool = True) -> str:
    """The slash command that a line is, with or without its slash; empty where it is a sentence.

    A word alone is one: a sentence about a report has more words, and those of a description an article or a form. A
    `more` is one where something is left of a page on the screen; else it asks for more of what was answered.
    """
    if line.startswith("/"):
        return line[1:]
    words = " ".join(line.split()).removeprefix("tunesmith ")
    bare = words.rstrip(".!").lower()
    if bare in _LEAVES:
        return "quit"
    if (bare in _ALONE and (page_left or bare != "more")) or _WHOLE.fullmatch(bare):
        return bare
    if _OF_A_RUN.fullmatch(bare):
        return bare.replace("resume", "continue", 1)  # as the line by its own name
    return ""
