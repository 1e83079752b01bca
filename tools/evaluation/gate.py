"""The gate before a deployment: the very artifact that is to be served, against the base and over every hop between.

Against the base the target must be better, and by more than the form of its answers (`claim`): what passes as well in
another case's place was not shown to fit its message. The guarded blocks must not be worse, must not have lost more
cases than the margin allows, whatever chance says of so few, and must have answered. Over a hop (adapter, merge,
quantization) no block may be worse and the guarded ones must have answered: what is within chance there counts by the
base alone. A model that has for certain lost most of what the adapter won in likelihood is refused too.
"""

from __future__ import annotations

from tunesmith.memory.errors import BadInput, NotFound
from tunesmith.memory.records import Artifact
from tunesmith.memory.store import Store
from tunesmith.tools.core.stats import MAX_ERROR_SHARE
from tunesmith.tools.evaluation.advice import FLIPS_TO_SHOW
from tunesmith.tools.evaluation.claim import FORM_ONLY, TRIGGER_LIMIT
from tunesmith.tools.evaluation.comparison import BETTER, WORSE, BlockComparison, Comparison
from tunesmith.tools.evaluation.evidence import evidence_of
from tunesmith.tools.evaluation.likelihood_retained import likelihood_refusal
from tunesmith.tools.evaluation.lineage import Lineage
from tunesmith.tools.evaluation.pairing import compare_run
from tunesmith.tools.suites.case import GUARDED_BLOCKS, LISTED_BLOCKS, NEAR_MISS_BLOCK, PRIMARY_BLOCK


def broken_hops(store: Store, run: str, arm: str, *, made_as: Artifact | None = None) -> list[str]:
    """Why the run's newest `arm`, or the one given, must not be deployed, a line for each block; empty: it may.

    An evaluation of an earlier artifact counts for nothing. The adversarial block is listed, and gates nothing.
    """
    lineage = Lineage.of(store, made_as, arm) if made_as else Lineage.newest(store, run, arm)
    try:
        whole = compare_run(store, run, "base", arm, lineage=lineage)
    except (NotFound, BadInput) as error:
        return [str(error)]
    if not whole.comparable:
        return [whole.refused]
    broken = _unmeasured(whole)
    broken |= {name: why for name in whole.blocks if (why := _against_base(whole, name))}
    broken |= {name: why for name, why in _unclaimed(store, run, arm, lineage).items() if name not in broken}
    for hop in _hops(store, run, lineage) if lineage else ():
        lost = {name: f"{' → '.join(hop.arms)}, {why}" for name in hop.blocks if (why := _over_hop(hop, name))}
        broken |= {name: why for name, why in lost.items() if name not in broken}
    unlikely = likelihood_refusal(store, run, arm, lineage)
    return [*broken.values(), *([unlikely] if unlikely else [])]


def _unclaimed(store: Store, run: str, arm: str, lineage: Lineage | None) -> dict[str, str]:
    """What the counts alone do not tell: a target that any answer of the form passes, a form that is everywhere."""
    evidence = evidence_of(store, run, arm, lineage=lineage)
    if evidence.claim.word == FORM_ONLY:
        line = f"{PRIMARY_BLOCK}: {FORM_ONLY}: {evidence.claim.sentence}"
        return {PRIMARY_BLOCK: f"{line}; {_shows(run, 'base', arm)} the controls"}
    triggers = evidence.controls.triggers
    if triggers and triggers.rate > TRIGGER_LIMIT:
        line = f"{len(triggers.triggered)} of {triggers.cases} ordinary messages are answered in the behaviour's form"
        return {NEAR_MISS_BLOCK: f"{NEAR_MISS_BLOCK}: {line}; {_shows(run, 'base', arm)} them"}
    return {}


def _hops(store: Store, run: str, lineage: Lineage) -> list[Comparison]:
    """Each evaluated artifact of a lineage against the nearest before it that it may be compared with.

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
    return [hop for hop in hops if hop.arms != ("base", way[-1])]


def _unmeasured(whole: Comparison) -> dict[str, str]:
    """Blocks that no case of the suite tells of, so that nothing is known: what is not there breaks no test."""
    a, b = whole.arms
    owed = [PRIMARY_BLOCK, *(name for name in whole.left_out if name in GUARDED_BLOCKS)]
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
    if name == PRIMARY_BLOCK:
        return "" if block.verdict == BETTER else _refusal(whole, name, _too_few_to_gain(whole))
    if block.verdict == WORSE:
        return _refusal(whole, name)
    if erred := _erred(name, block):
        return _refusal(whole, name, erred)
    lost = -(block.difference or 0.0)
    if name in GUARDED_BLOCKS and lost > whole.margin:
        return _refusal(whole, name, f"{lost:.1%} lost, over the margin of {whole.margin:.0%}")
    return ""


def _too_few_to_gain(whole: Comparison) -> str:
    """Whether the base leaves too few cases to show any gain on, however good the model is."""
    block, base = whole.blocks[PRIMARY_BLOCK], whole.arms[0]
    failed = block.judged - block.passed[base]
    if not block.judged or failed >= FLIPS_TO_SHOW:
        return ""
    return f"{base} fails {failed}, and fewer than {FLIPS_TO_SHOW} show no gain: write harder cases"


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
