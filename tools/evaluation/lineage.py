"""What a model was made from: base → adapter → merged → quantized, by the arm that each of them is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tunesmith.memory.arms import CHAIN
from tunesmith.memory.errors import BadInput
from tunesmith.memory.records import Artifact
from tunesmith.memory.store import Store
from tunesmith.tools.models.measuring import QUANTIZED_BASE, measured_as


@dataclass(frozen=True, slots=True)
class Lineage:
    """A model and those that it came from, as far as the store knows them; the base first, the model itself last."""

    models: Mapping[str, Artifact]
    """Arm → the artifact that it was at that point of the chain."""

    @classmethod
    def of(cls, store: Store, artifact: Artifact, arm: str) -> Lineage:
        """The way to an artifact that is the chain's `arm`."""
        before = CHAIN[: CHAIN.index(arm)] if arm in CHAIN else ()
        ancestors = {kind: ancestor for kind in before if (ancestor := store.ancestor(artifact, kind))}
        return cls({**ancestors, arm: artifact})

    @classmethod
    def newest(cls, store: Store, run: str, arm: str) -> Lineage | None:
        """The way to the run's newest `arm`; None where it made none."""
        artifacts = store.artifacts(run, arm)
        return cls.of(store, artifacts[-1], arm) if artifacts else None

    @property
    def base(self) -> Artifact | None:
        """The base at its beginning; None where that is not recorded."""
        return self.models.get("base")

    @property
    def arms(self) -> tuple[str, ...]:
        """The arms on the way, the base first."""
        return tuple(self.models)


def own_base(store: Store, run: str, arm: str) -> Artifact | None:
    """The base that the run's newest `arm` was made from; None where the run has none, or its origin is not recorded.

    Raises BadInput where the run's base is another model by now: nothing of the one may be held against the other.
    """
    lineage, bases = Lineage.newest(store, run, arm), store.artifacts(run, "base")
    own = lineage.base if lineage else None
    if lineage and own and bases and bases[-1].sha256 != own.sha256:
        name, other = (str(base.meta.get("name", base.id)) for base in (own, bases[-1]))
        raise BadInput(
            f"the {arm} {lineage.models[arm].id} was made from base {own.id} ({name}), and the base of {run} is now "
            f"{bases[-1].id} ({other}); train again on that, or fetch it into a run of its own with `tunesmith base`"
        )
    return own


def as_measured(store: Store, run: str, own: Artifact) -> Artifact:
    """The base of a run's adapter as the adapter was measured on it: itself, or its quantized base. Raises BadInput."""
    same = [base for base in store.artifacts(run, "base") if base.sha256 == own.sha256]
    quantized = [q for q in store.artifacts(run, QUANTIZED_BASE) if q.meta.get("base_sha256") == own.sha256]
    return measured_as(same[-1] if same else own, quantized[-1] if quantized else None)
