"""`compare` and `explain` on a terminal: the verdict in a sentence, the table, five cases, the next step."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence

from rich.console import RenderableType
from rich.text import Text

from tunesmith.agent.commands import render, theme
from tunesmith.agent.commands.cases_view import CaseTexts
from tunesmith.agent.commands.layout import Prose, prose
from tunesmith.memory.store import Store
from tunesmith.tools.core.format import count, p_value, visible
from tunesmith.tools.evaluation.compare import ComparedWithHops
from tunesmith.tools.evaluation.comparison import LOST
from tunesmith.tools.evaluation.findings import Finding, Proposal, findings
from tunesmith.tools.suites.case import PRIMARY_BLOCK


def comparison_view(
    store: Store, compared: ComparedWithHops, *, whole: bool, in_repl: bool
) -> Iterator[RenderableType]:
    """The verdict first; `whole` also gives every flip, the controls and each case that still fails."""
    yield Prose(verdict_sentence(compared), hang=2)
    yield render.comparison_table(compared.whole)
    yield from (render.hop_line(hop) for hop in compared.chain)
    yield from lost_and_failing(store, compared, whole=whole)
    if whole:
        yield from evidence_view(compared)
    if compared.advice:
        yield prose(compared.advice)
    if not whole:
        command_ = f"{'/' if in_repl else 'tunesmith '}compare {compared.whole.run} --all"
        yield prose(f"`{command_}` shows every case and the controls")
    yield next_line(findings(store, compared.whole.run), compared.whole.run, in_repl=in_repl)


def verdict_sentence(compared: ComparedWithHops) -> Text:
    """What became of the target, in one sentence with its numbers; why it is no comparison where it is none."""
    whole, (a, b) = compared.whole, compared.whole.arms
    if whole.refused:
        return theme.verdict("not comparable") + Text(f": {visible(whole.refused)}")
    block = PRIMARY_BLOCK if PRIMARY_BLOCK in whole.blocks else next(iter(whole.blocks), "")
    if not block:
        return Text(f"{whole.run}: no case was asked of {a} and {b} alike")
    if compared.evidence and a == "base" and b == compared.evidence.arm:
        verdict = compared.evidence.verdict
        by, _, why = verdict.because.partition(": ")
        return Text(f"{whole.run} ") + theme.verdict(verdict.word) + Text(visible(f"{by}: {b}, {why}."))
    counts = whole.blocks[block]
    numbers = (
        f": {b} passes {counts.passed[b]} of {counts.judged} {block} cases and {a} {counts.passed[a]} "
        f"({counts.fail_to_pass} gained, {counts.pass_to_fail} lost, {p_value(counts.p_value)})"
    )
    return Text(f"{whole.run} ") + theme.verdict(counts.verdict) + Text(visible(f"{numbers}."))


def lost_and_failing(store: Store, compared: ComparedWithHops, *, whole: bool = False) -> Iterator[RenderableType]:
    """Cases that the second arm lost, and those of the target that it still fails: question → answer → wanted."""
    a, b = compared.whole.arms
    lost = [flip.case_id for flip in compared.whole.flips_of(LOST)]
    failing = [limit.case_id for limit in compared.known_limits if limit.case_id not in lost]
    # Flips of blind cases are hidden, and the counts of their blocks are not.
    blind = sum(block.pass_to_fail for block in compared.whole.blocks.values()) - len(lost)
    if not (lost or failing or blind or compared.blind_limits):
        return
    texts = CaseTexts.of(store, compared.whole.run, compared.whole.steps[b], b)
    of_limits = max(0, compared.blind_limits - blind)
    for heading, cases, unseen in (
        (f"lost from {a} to {b}", lost, blind),
        (f"{b} still fails", failing, of_limits),
    ):
        if cases or unseen:
            yield Prose(Text(f"{heading}: {count(len(cases) + unseen, 'case')}", style="bold"))
            yield from texts.view(cases, all_of_them=whole, blind=unseen)


def evidence_view(compared: ComparedWithHops) -> Iterator[RenderableType]:
    """Flips, metrics, the controls, what a hop kept: what a claim rests on."""
    whole = compared.whole
    if flips := [[flip.block, flip.case_id, flip.before, flip.after] for flip in whole.flips]:
        yield render.rows_table(["block", "case", *whole.arms], flips)
    if whole.metrics:
        rows = [[name, *m.mean.values(), m.difference, m.p_adjusted] for name, m in whole.metrics.items()]
        rounded = [[f"{cell:.3g}" if isinstance(cell, float) else cell for cell in row] for row in rows]
        yield render.rows_table(["metric", *whole.arms, "difference", "p (Holm)"], rounded)
    if compared.evidence and compared.evidence.compared:
        yield render.controls_table(compared.evidence)
    yield from (prose(f"gain retained: {one.sentence}") for one in compared.retained)


def next_line(findings: Sequence[Finding], run: str, *, in_repl: bool) -> RenderableType:
    """The one step to try next, as a line that can be typed: what decides, or of the finding with most at stake."""
    if undecided := next((one for one in findings if one.evidence.get("needed")), None):
        rate = f"{'/' if in_repl else 'tunesmith '}rate {run} --arms base,{undecided.evidence['arm']}"
        return Prose(Text("next: ") + Text(rate, style=theme.COMMAND))
    proposed = [one for one in findings if one.next is not None]
    best = max(proposed, key=_at_stake, default=None)
    if best is None or best.next is None:
        return Prose(Text("next: ") + Text(f"{'/' if in_repl else 'tunesmith '}report {run}", style=theme.COMMAND))
    line = Text("next: ") + Text(visible(command(best.next, run, in_repl=in_repl)), style=theme.COMMAND)
    return Prose(line + Text(visible(f"\n      {best.next.why}"), style=theme.LABEL))


def _at_stake(one: Finding) -> int:
    passed, judged = one.evidence.get("passed"), one.evidence.get("judged")
    return judged - passed if isinstance(passed, int) and isinstance(judged, int) else len(one.cases)


def command(proposal: Proposal, run: str, *, in_repl: bool) -> str:
    """A proposed step as it is typed: into a shell, or at the prompt."""
    fields = {"run": run, **proposal.fields}
    if in_repl:
        return " ".join([f"/{proposal.stage}", *(shlex.quote(f"{name}={rounded(fields[name])}") for name in fields)])
    flags = (f"--{name.replace('_', '-')} {shlex.quote(rounded(value))}" for name, value in fields.items())
    return " ".join(["tunesmith", proposal.stage, *flags])


def fields_words(fields: Mapping[str, object]) -> str:
    """Fields as people read them, their figures rounded."""
    return " ".join(f"{name}={rounded(value)}" for name, value in fields.items())


def rounded(value: object) -> str:
    """A figure to the digits that matter: 6.3e-04, 2.25, 0.0015; other values as they are."""
    if not isinstance(value, float):
        return str(value)
    if value and abs(value) < 1e-3:
        mantissa, _, exponent = f"{value:.2e}".partition("e")
        return f"{mantissa.rstrip('0').rstrip('.')}e{exponent}"
    return f"{value:.4g}"
