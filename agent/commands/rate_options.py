"""The options of `tunesmith rate`. Light: the command line's help reads them."""

from __future__ import annotations

import argparse
import re

RATE = "judge answers of two arms, unlabelled, with two keys each; they count as a person's cases"


def add_rate_options(rate: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Give a parser what `rate` takes, its consent apart; the same parser."""
    rate.add_argument("run", nargs="?", metavar="RUN", help="else the newest that made a model")
    source = "messages from a file, one a line, or .jsonl or .csv; else you type or paste them"
    rate.add_argument("--messages", "--file", metavar="FILE", help=source)
    rate.add_argument("--generated", type=int, metavar="N", help="N messages of held-out rows; they count apart")
    rate.add_argument("--again", action="store_true", help="the messages that were judged with other models of the run")
    rate.add_argument("--arms", default="", metavar="A,B", help="else the base and what is deployed or was made last")
    rate.add_argument("--show", action="store_true", help="print what was judged, and judge nothing")
    back = "take a judgement back; the newest without N"
    rate.add_argument("--take-back", type=int, nargs="?", const=0, metavar="N", help=back)
    rate.add_argument("--web", action="store_true", help="as a page in a browser of this machine")
    rate.add_argument("--port", type=port_number, metavar="N", help="with --web: of the page; else a free one")
    rate.add_argument("--approve", metavar="HASH", help="agree to starting what was shown with this hash")
    return rate


def port_number(text: str) -> int:
    """A port. Raises ArgumentTypeError for what is none."""
    port = int(text) if re.fullmatch("[0-9]{1,5}", text) else 0
    if not 1 <= port <= 65_535:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is no port; a port is a whole number from 1 to 65535")
    return port
