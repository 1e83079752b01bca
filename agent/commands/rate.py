"""`tunesmith rate` and `/rate`: a person judges two models' answers, unlabelled; counted as a person's cases."""

from __future__ import annotations

import argparse
import sys

from rich.console import Group

from tunesmith.agent.commands import render
from tunesmith.agent.commands.layout import prose
from tunesmith.agent.commands.output import Output
from tunesmith.agent.commands.settings import Settings
from tunesmith.memory.errors import BadInput
from tunesmith.memory.store import Store
from tunesmith.tools.core.format import clip
from tunesmith.tools.evaluation.ask import STAYS_MINUTES, named_arms
from tunesmith.tools.evaluation.message_files import messages_in
from tunesmith.tools.evaluation.rated_messages import MOST
from tunesmith.tools.pipeline.rate_answers import Sitting
from tunesmith.tools.pipeline.workspace import Approver

_CHARACTERS = 60
"""A message in one line of a table; the next look shows it whole."""


def rate(
    args: argparse.Namespace, settings: Settings, store: Store, out: Output, approver: Approver | None = None
) -> int:
    """`rate [RUN]`: 0, or 1 where an arm gave no answer. Raises BadInput, NotFound, ApprovalPending, StepFailed."""
    looks = args.show or args.take_back is not None
    if not (looks or args.web or (sys.stdin.isatty() and (out.page or sys.stderr.isatty()))):
        raise BadInput(
            "a judgement is a person's keys, and there is no terminal here; --web opens a page on this machine, and "
            "--show prints what was judged"
        )
    if args.port is not None and not args.web:
        raise BadInput(f"--port {args.port} is the page's; give --web too, or leave it out")
    if args.generated is not None and not 1 <= args.generated <= MOST:
        raise BadInput(f"--generated takes a number of messages from 1 to {MOST}, not {args.generated}")
    out.asked.add("")  # how far the asking is, shown from the first answer on
    ws = settings.workspace(store, out.emit)
    sitting = Sitting.of(ws, args.run or "", named_arms(args.arms))
    if args.take_back is not None:
        number = sitting.take_back(args.take_back)
        out.say(f"message {number} was taken back: it counts no more, and waits to be judged again")
    elif not args.show:
        if approver is None:
            from tunesmith.agent.commands.run_steps import approver_of

            approver = approver_of(args, out)
        _sit(args, sitting, out, approver)
    table = render.rows_table(["", "message", "from", *sitting.pair.arms], _rows(sitting), exact=True)
    if args.show:
        out.document(sitting.document(), table)
    else:
        lines = [*sitting.sentence(), *_next(sitting, "/" if out.page else "tunesmith ")]
        out.document(sitting.document(), Group(*map(prose, lines)))
    return 1 if sitting.errors else 0


def _sit(args: argparse.Namespace, sitting: Sitting, out: Output, approver: Approver) -> None:
    """Take messages in, have them answered, and have them judged."""
    refused: list[str] = []
    if args.messages is not None:
        refused += sitting.add_all(messages_in(args.messages), "file")
    if args.generated is not None:
        refused += sitting.add_generated(args.generated)
    if args.again:
        refused += sitting.add_earlier()
    for line in refused:
        out.say(line)
    try:
        if args.web:
            from tunesmith.agent.commands.rate_web import serve

            serve(sitting, out, approver, port=args.port or 0)
        else:
            from tunesmith.agent.commands.rate_terminal import sit

            given = args.messages is not None or args.generated is not None or args.again
            sit(sitting, out, approver, given=given)
    finally:
        out.let_go()
    for number, one in sitting.now().items():
        if error := sitting.errors.get(one.id):
            out.say(f"message {number} was not answered, and waits: {error}")


def _rows(sitting: Sitting) -> list[list[str]]:
    """What was judged, as a table; of what was not, nothing that tells the arms apart."""
    words = {True: "right", False: "wrong", None: ""}
    return [
        [str(number), clip(" ".join(one.message.split()), _CHARACTERS), one.source,
         *((words[one.first_right], words[one.last_right]) if one.rated else ("waits", ""))]
        for number, one in sitting.now().items()
    ]  # fmt: skip


def _next(sitting: Sitting, command: str) -> list[str]:
    """What holds of these judgements, and what can be done next."""
    rate = f"{command}rate {sitting.pair.run}"
    return [
        f"They are of {sitting.pair.last_arm}'s answers ({sitting.pair.last_artifact}); another arm answers the same "
        f"messages anew: `{rate} --arms base,ARM --again`.",
        f"`{rate} --show` lists them, `{rate} --take-back N` takes one back.",
        f"What was started answers on for {STAYS_MINUTES} minutes.",
    ]
