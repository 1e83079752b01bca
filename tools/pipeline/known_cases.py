"""Rows that hold test cases are refused: a model that has seen a case proves nothing by passing it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress

from tunesmith.memory.errors import BadInput
from tunesmith.memory.store import Store
from tunesmith.tools.core.format import count
from tunesmith.tools.core.local_paths import BUNDLED_BEHAVIOUR
from tunesmith.tools.data.behaviour import own_suites
from tunesmith.tools.imports.import_rows import ImportRequest, files_of, is_on_hub, look_at
from tunesmith.tools.imports.survey import RowsSource, asking_cases
from tunesmith.tools.suites.case import UNSTATED, Case
from tunesmith.tools.suites.loading import BUNDLED, load_named_suites, read_suite

_EXAMPLES = ("example", UNSTATED[0])
"""Cases whose message is a described example: among a user's own rows it is trained on, and tests nothing then."""


def refuse_cases(store: Store, source: str, mapping: object = None) -> int:
    """How many rows a file or folder holds, as far as its first ones tell. Raises BadInput where one is a test case.

    A data set of the hub is not read before its download was agreed to; critique holds its rows against the cases.
    """
    columns = {str(name): str(role) for name, role in mapping.items()} if isinstance(mapping, Mapping) else {}
    limit = int(ImportRequest.model_fields["limit"].default)
    if is_on_hub(source):
        return limit
    files = files_of(source)
    look = look_at(files, columns, limit)
    if not look.inspection.preview:  # its import says why
        return look.records
    read = RowsSource(files.files, dict(look.inspection.mapping), limit, source)
    if found := asking_cases([read], list(_cases(store))):
        raise BadInput(
            f"{count(len(found), 'row')} of {source} asked as a test case is, such as {found[0]}; a model that has "
            "seen a case proves nothing by passing it: leave such rows out"
        )
    return look.records


def _cases(store: Store) -> Iterator[Case]:
    """The cases of the suites that come with tunesmith, of every behaviour and of every run of this home."""
    behaviours = sorted((store.home / "behaviours").glob("*"))
    for name in (BUNDLED_BEHAVIOUR, *BUNDLED, *(suite for folder in behaviours for suite in own_suites(str(folder)))):
        with suppress(BadInput):  # one that was broken by hand
            yield from (one for one in load_named_suites((name,)).cases if one.metadata.get("source") not in _EXAMPLES)
    for artifact in store.newest_of_kind("suite"):
        with suppress(BadInput, OSError):  # a file that was taken away
            cases = read_suite(artifact.path).cases
            yield from (one for one in cases if one.metadata.get("source") not in _EXAMPLES)
