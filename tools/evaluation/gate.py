"""The gate before a deployment: the very artifact that is to be served, against the base and over every hop between.

It refuses what was not measured, what the verdict calls *form only*, and what got worse: a guarded block against the
base where harm is shown (`harm`), and any block over a hop (adapter, merge, quantization).
Over a hop, and from the adapter on over all of them, the exact test refuses from six lost cases on where none is
gained, so whatever keeps less than half of the ten cases that a claim needs at least. At every other verdict than
*learned* it warns. Of what it refuses a person may accept all that was measured, with a reason (`deploy --accept`).
"""

from __future__ import annotations

from dataclasses import dataclass

from tunesmith.memory.errors import BadInput, NotFound
from tunesmith.memory.records import Artifact
from tunesmith.memory.store import Store
from tunesmith.tools.core.stats import MAX_ERROR_SHARE
from tunesmith.tools.evaluation.comparison import WORSE, BlockComparison, Comparison
from tunesmith.tools.evaluation.evidence import evidence_of
from tunesmith.tools.evaluation.harm import open_question
from tunesmith.tools.evaluation.lineage import Lineage
from tunesmith.tools.evaluation.pairing import compare_run
from tunesmith.tools.evaluation.verdict import FORM_ONLY, LEARNED
from tunesmith.tools.suites.case import GUARDED_BLOCKS, LISTED_BLOCKS, PRIMARY_BLOCK


@dataclass(frozen=True, slots=True)
class Gate:
    """What the gate says of a model, a line for each block."""

    unmeasured: tuple[str, ...] = ()
    """What nobody measured: no reason opens the gate for it."""
    refused: tuple[str, ...] = ()
    """What was measured and is refused."""
    warnings: tuple[str, ...] = ()

    @property
    def broken(self) -> tuple[str, ...]:
        """All that stands in the way."""
        return (*self.unmeasured, *self.refused)


def gate_of(store: Store, run: str, arm: str, *, artifact: Artifact | None = None) -> Gate:
    """What the gate says of the run's newest `arm`, or of the one given.

    An evaluation of an earlier artifact counts for nothing. The adversarial block is listed, and gates nothing.
    """
    lineage = Lineage.of(store, artifact, arm) if artifact else Lineage.newest(store, run, arm)
    try:
        whole = compare_run(store, run, "base", arm, lineage=lineage)
    # an arm that was not evaluated, a suite that is gone: then the gate stays shut
    except (NotFound, BadInput) as error:
        return Gate(unmeasured=(str(error),))
    if not whole.comparable:
        return Gate(unmeasured=(whole.refused,))
    unmeasured = _unmeasured(whole)
    broken = {name: why for name in whole.blocks if (why := _against_base(whole, name))}
    verdict = evidence_of(store, run, arm, lineage=lineage).verdict
    if verdict.word == FORM_ONLY:
        broken[PRIMARY_BLOCK] = f"{PRIMARY_BLOCK}: {verdict.sentence}; {_shows(run, 'base', arm)} the controls"
    for line in verdict.worse:
        if (name := line.partition(" ")[0]) not in broken:
            broken[name] = f"{line}; {_shows(run, 'base', arm)} them"
    for hop in _hops(store, run, lineage) if lineage else ():
        lost = {name: f"{' → '.join(hop.arms)}, {why}" for name in hop.blocks if (why := _over_hop(hop, name))}
        broken |= {name: why for name, why in lost.items() if name not in broken}
    warnings: tuple[str, ...] = (verdict.sentence,) if verdict.word not in (LEARNED, FORM_ONLY) else ()
    unsure = open_question(verdict.harm)
    if unsure and unsure not in " ".join(warnings):
        warnings += (unsure,)
    return Gate(unmeasured=tuple(unmeasured.values()), refused=tuple(broken.values()), warnings=warnings)


def _hops(store: Store, run: str, lineage: Lineage) -> list[Comparison]:
    """Each evaluated artifact of a lineage against the nearest before it that it may be compared with, and the last one
    against the adapter: two hops may each lose too little to show.

    The last against the base is left out: that is no hop but the whole way.
    """
    way, hops = ["base"], []
    for arm in [name for name in lineage.arms if name != "base"]:
        for before in reversed(way):
            try:
                hop = compare_run(store, run, before, arm, lineage=lineage)
            except NotFound:
                break  # this artifact was never evaluated
            if hop.comparable:
                way.append(arm)
                hops.append(hop)
                break
    if "adapter" in way[:-2]:
        since = compare_run(store, run, "adapter", way[-1], lineage=lineage)
        hops += [since] if since.comparable else []
    return [hop for hop in hops if hop.arms != ("base", way[-1])]


def _unmeasured(whole: Comparison) -> dict[str, str]:
    """Guarded blocks that were not asked of both, so that nothing is known: what is not there breaks no test."""
    a, b = whole.arms
    owed = [name for name in whole.left_out if name in GUARDED_BLOCKS]
    return {
        name: f"{name}: no case of it was asked of both {a} and {b}, so nothing is known of it; put such cases into "
        "the suite, then `tunesmith baseline` and evaluate again"
        for name in owed
        if name not in whole.blocks
    }


def _against_base(whole: Comparison, name: str) -> str:
    block = whole.blocks[name]
    if name in LISTED_BLOCKS:
        return ""
    if block.verdict == WORSE:
        return _refusal(whole, name)
    if erred := _erred(name, block):
        return _refusal(whole, name, erred)
    return ""


def _over_hop(hop: Comparison, name: str) -> str:
    block = hop.blocks[name]
    if name in LISTED_BLOCKS:
        return ""
    if block.verdict == WORSE:
        return _refusal(hop, name, f"p = {block.p_value:.2g}")
    erred = _erred(name, block)
    return _refusal(hop, name, erred) if erred else ""


def _erred(name: str, block: BlockComparison) -> str:
    """Whether too many cases of a guarded block have no answer to say that nothing was lost."""
    worst = max(block.errors.values())
    if name not in GUARDED_BLOCKS or worst <= MAX_ERROR_SHARE * block.cases:
        return ""
    return f"{worst} of {block.cases} cases erred, over {MAX_ERROR_SHARE:.0%}: evaluate again"


def _refusal(compared: Comparison, name: str, why: str = "") -> str:
    """In one line: the block, the verdict, the numbers, what shows the cases."""
    a, b = compared.arms
    block = compared.blocks[name]
    passed = f"{block.passed[a]} → {block.passed[b]} of {block.judged} passed"
    return f"{name}: {block.verdict} ({', '.join(filter(None, (passed, why)))}); {_shows(compared.run, a, b)} the flips"


def _shows(run: str, a: str, b: str) -> str:
    return f"`tunesmith compare {run} --arms {a},{b}` shows"
