"""The gate before a deployment: the very artifact that is to be served, against the base and over every hop between.

Against the base the target must be better. The guarded blocks must not be worse, must not have lost more cases than
the margin allows, whatever chance says of so few, and must have answered. Over a hop (adapter, merge, quantization) no
block may be worse and the guarded ones must have answered: what is within chance there counts by the base alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunesmith.memory.errors import BadInput, NotFound
from tunesmith.memory.records import Artifact
from tunesmith.memory.store import Store
from tunesmith.tools.evaluation.advice import FLIPS_TO_SHOW
from tunesmith.tools.evaluation.comparison import compare_run
from tunesmith.tools.evaluation.protocol import CHAIN
from tunesmith.tools.evaluation.statistics import BETTER, MAX_ERROR_SHARE, WORSE
from tunesmith.tools.suites.case import GUARDED_BLOCKS, LISTED_BLOCKS, PRIMARY_BLOCK


def broken_hops(store: Store, run: str, arm: str, *, made_as: Artifact | None = None) -> list[str]:
    """Why the run's newest `arm`, or the one given, must not be deployed, a line for each block; empty: it may.

    An evaluation of an earlier artifact counts for nothing. The adversarial block is listed, and gates nothing.
    """
    made = _line(store, run, arm, made_as)
    try:
        whole = compare_run(store, run, "base", arm, made=made)
    except (NotFound, BadInput) as error:
        return [str(error)]
    if not whole["comparable"]:
        return [str(whole["refused"])]
    told = _unmeasured(whole)
    told |= {block: why for block in whole["blocks"] if (why := _against_base(whole, block))}
    for hop in _hops(store, run, made):
        over = " → ".join(hop["arms"])
        told |= {name: f"{over}, {why}" for name in hop["blocks"] if name not in told and (why := _over_hop(hop, name))}
    return list(told.values())


def _line(store: Store, run: str, arm: str, made_as: Artifact | None) -> dict[str, Artifact]:
    """The artifacts from the base to the run's `arm`, as far as the store knows them, by the arm they are."""
    made = made_as or next(reversed(store.artifacts(run, arm)), None)
    if made is None:
        return {}
    before = {kind: store.ancestor(made, kind) for kind in CHAIN[: CHAIN.index(arm)]}
    return {**{kind: artifact for kind, artifact in before.items() if artifact}, arm: made}


def _hops(store: Store, run: str, made: Mapping[str, Artifact]) -> list[dict[str, Any]]:
    """Each evaluated artifact of a line against the nearest before it that it may be compared with.

    The last against the base is left out: that is no hop but the whole way.
    """
    way, found = ["base"], []
    for arm in [name for name in CHAIN[1:] if name in made]:
        for before in reversed(way):
            try:
                hop = compare_run(store, run, before, arm, made=made)
            except NotFound:
                break  # this artifact was never evaluated
            if hop["comparable"]:
                way.append(arm)
                found.append(hop)
                break
    return [hop for hop in found if hop["arms"] != ["base", way[-1]]]


def _unmeasured(whole: Mapping[str, Any]) -> dict[str, str]:
    """Blocks that no case of the suite tells of, so that nothing is known: what is not there breaks no test."""
    a, b = whole["arms"]
    owed = [PRIMARY_BLOCK, *(name for name in whole["left_out"] if name in GUARDED_BLOCKS)]
    return {
        name: f"{name}: no case of it was asked of both {a} and {b}, so nothing is known of it; put such cases into "
        "the suite, then `tunesmith baseline` and evaluate again"
        for name in owed
        if name not in whole["blocks"]
    }


def _against_base(compared: Mapping[str, Any], block: str) -> str:
    counts = compared["blocks"][block]
    if block in LISTED_BLOCKS:
        return ""
    if block == PRIMARY_BLOCK:
        return "" if counts["verdict"] == BETTER else _told(compared, block, _too_few_to_gain(compared))
    if counts["verdict"] == WORSE:
        return _told(compared, block)
    if erred := _erred(block, counts):
        return _told(compared, block, erred)
    lost, margin = -(counts["difference"] or 0.0), compared["margin"]
    if block in GUARDED_BLOCKS and lost > margin:
        return _told(compared, block, f"{lost:.1%} lost, over the margin of {margin:.0%}")
    return ""


def _too_few_to_gain(compared: Mapping[str, Any]) -> str:
    """Whether the base leaves too few cases to show any gain on, however good the model is."""
    counts, base = compared["blocks"][PRIMARY_BLOCK], compared["arms"][0]
    failed = counts["judged"] - counts["passed"][base]
    if not counts["judged"] or failed >= FLIPS_TO_SHOW:
        return ""
    return f"{base} fails {failed}, and fewer than {FLIPS_TO_SHOW} show no gain: write harder cases"


def _over_hop(compared: Mapping[str, Any], block: str) -> str:
    counts = compared["blocks"][block]
    if block in LISTED_BLOCKS:
        return ""
    if counts["verdict"] == WORSE:
        return _told(compared, block, f"p = {counts['p_value']:.2g}")
    erred = _erred(block, counts)
    return _told(compared, block, erred) if erred else ""


def _erred(block: str, counts: Mapping[str, Any]) -> str:
    """Whether too many cases of a guarded block have no answer to say that nothing was lost."""
    worst = max(counts["errors"].values())
    if block not in GUARDED_BLOCKS or worst <= MAX_ERROR_SHARE * counts["cases"]:
        return ""
    return f"{worst} of {counts['cases']} cases erred, over {MAX_ERROR_SHARE:.0%}: evaluate again"


def _told(compared: Mapping[str, Any], block: str, why: str = "") -> str:
    """A refusal in one line: the block, the verdict, the numbers, what shows the cases."""
    a, b = compared["arms"]
    counts = compared["blocks"][block]
    passed = f"{counts['passed'][a]} → {counts['passed'][b]} of {counts['judged']} passed"
    return (
        f"{block}: {counts['verdict']} ({', '.join(filter(None, (passed, why)))}); "
        f"`tunesmith compare {compared['run']} --arms {a},{b}` shows the flips"
    )
