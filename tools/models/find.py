"""The model that a name, a folder, a size or a hub id means, by its config alone: no weights are read or fetched."""

from __future__ import annotations

from tunesmith.memory.errors import BadInput, TunesmithError
from tunesmith.tools.core.local_paths import expanded, looks_like_path
from tunesmith.tools.models.bundled import BUNDLED, bundled_names
from tunesmith.tools.models.folder import read_config, refuse_other_work
from tunesmith.tools.models.hub import HUB_ID, hub_config, newest_commit, of_link
from tunesmith.tools.models.model_names import NamedModel, SeveralSizes, named_model, usual_models


def find_model(name: str, revision: str = "") -> tuple[NamedModel, str]:
    """The model that a name, a folder, a size or a hub id means, and the commit that was read, if one was.

    Raises BadInput for what is none of these, StepFailed where the hub has to be asked and cannot be reached.
    """
    if not name.strip():
        raise BadInput("no model is named; give a hub id (owner/name), a folder, or a size (7b)")
    linked, at = of_link(name)
    name, revision = linked or name, revision or at
    try:
        folder = expanded(name)
        if looks_like_path(name) or folder.is_dir():
            config = read_config(folder)
            refuse_other_work(config, f"{folder}/config.json")
            return NamedModel(folder.resolve().name, config), ""
    except TunesmithError:
        raise
    except (OSError, RuntimeError, ValueError) as error:  # a name too long, a NUL, ~somebody
        raise BadInput(f"{name[:80]!r} is no folder that can be read: {str(error)[:80]}") from None
    if name in BUNDLED:
        return NamedModel(BUNDLED[name].title, BUNDLED[name].config), ""
    several: SeveralSizes | None = None
    try:
        known = named_model(name)
    except SeveralSizes as error:  # of a name alone; as a hub id it may still be one model
        if not HUB_ID.fullmatch(name):
            raise
        known, several = None, error
    if known is not None and not (known.approximate and HUB_ID.fullmatch(name)):
        return known, ""
    if HUB_ID.fullmatch(name):
        try:
            commit = revision or newest_commit(name)
            config = hub_config(name, commit)
        except TunesmithError as error:  # a hub that cannot be asked: what is known of the name has to do
            if known is None:
                raise several or error from None
            return known, ""
        refuse_other_work(config, f"config.json of {name}")
        return NamedModel(name, config), commit
    usual = ", ".join(model.name for model in usual_models()[:6])  # a line; one of each size
    others = f"a folder, a size (7b), {bundled_names()}, or say {usual}"
    raise BadInput(f"no model {name[:80]!r} is known; give a hub id (owner/name), {others}")
