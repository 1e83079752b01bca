"""Train what tells the sentences of a description apart, from described/: `make words`, some seconds."""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from tests.words.train import intents
from tunesmith.agent.words.openings import ROLES, features
from tunesmith.agent.words.reading import reader
from tunesmith.tools.core.yaml_file import read_own

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LAYER = Path(str(files("tunesmith.agent.words") / "openings.npz"))
_EXAMPLES = sorted((Path(__file__).parent / "described").glob("*.yaml"))
_LONG = 15
"""Words of a sentence that may be a description without a mark."""
_PENALTY = 3e-5
"""Of the squared weights; of 1e-3 to 1e-5 the best on descriptions of other writers."""


def descriptions() -> list[list[tuple[str, str]]]:
    """The described behaviours of described/: each a list of roles and sentences."""
    return [[(str(role), str(one)) for role, one in said["say"]] for file in _EXAMPLES for said in read_own(file)]


def fingerprint() -> str:
    """Of what was learned from: the examples, and what the encoder was taught."""
    digest = hashlib.sha256()
    for file in _EXAMPLES:
        digest.update(file.read_bytes())
    for name, array in sorted(reader().head.added.items()):
        digest.update(name.encode() + array.tobytes())
    return digest.hexdigest()


def learned_from() -> str:
    """The fingerprint of what the layer in the package learned from."""
    import numpy as np

    with np.load(LAYER) as stored:
        return str(stored["fingerprint"])


def main(argv: Sequence[str] | None = None) -> int:
    """Learn from described/ and write openings.npz."""
    import numpy as np
    from scipy.optimize import minimize

    argparse.ArgumentParser(description=__doc__).parse_args(argv)
    said = descriptions()
    taught = [*said, *([("both", _without_marks(each))] for each in said), *([("else", one)] for one in _asked_for())]
    x = np.concatenate([features([one for _, one in each]) for each in taught])
    y = np.array([ROLES.index(role) for each in taught for role, _ in each])
    wanted, shape = np.eye(len(ROLES))[y], (len(ROLES), x.shape[1] + 1)

    def loss(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        weights = flat.reshape(shape)
        scores = x @ weights[:, :-1].T + weights[:, -1]
        likely = np.exp(scores - scores.max(axis=1, keepdims=True))
        likely /= likely.sum(axis=1, keepdims=True)
        wrong = (likely - wanted) / len(y)
        slope = np.concatenate([wrong.T @ x + 2 * _PENALTY * weights[:, :-1], wrong.sum(axis=0)[:, None]], axis=1)
        of_right = likely[np.arange(len(y)), y]
        return float(_PENALTY * (weights[:, :-1] ** 2).sum() - np.log(of_right + 1e-12).mean()), slope.ravel()

    weights = minimize(loss, np.zeros(shape).ravel(), jac=True, method="L-BFGS-B").x.reshape(shape)
    np.savez_compressed(LAYER, weights=weights.astype(np.float16), fingerprint=np.array(fingerprint()))
    size = LAYER.stat().st_size / 1024
    print(f"{sum(map(len, said))} sentences of {len(said)} descriptions; {LAYER}: {size:.0f} KiB")
    return 0


def _without_marks(described: Sequence[tuple[str, str]]) -> str:
    """A whole description as some type it: no capitals, and nothing between its sentences."""
    return " ".join(one.rstrip(".!?。").lower() for _, one in described)


def _asked_for() -> list[str]:
    """Long sentences of people who want an answer or a step, and describe nothing."""
    asked = (one for label, said in intents().items() if not label.startswith(("want", "describe")) for one in said)
    return [one for one in asked if len(one.split()) >= _LONG]


if __name__ == "__main__":
    sys.exit(main())
