"""What runs left behind: files with their sizes and digests, what was made from what, and what takes the disk."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tunesmith.agent.queries.base import Query, RunName

Made = Literal[
    "", "base", "teacher", "suite", "rows", "dataset", "preflight", "adapter", "results", "merged", "quantized",
    "deployment",
]  # fmt: skip


class ArtifactQuery(Query):
    """What a run made, such as its adapter or dataset: where the files lie, their size, digest, date, and what they
    were made from."""

    kind: Literal["artifact"] = "artifact"
    about: Literal["overview", "path", "size", "digest", "lineage", "date"] = "overview"
    artifact: Annotated[str, Field(description="By its id, such as a12")] = ""
    made: Annotated[Made, Field(description="By what it is; empty: all that the run made")] = ""
    run: RunName = ""


class DiskUseQuery(Query):
    """What the files of a run, or of all runs, take on the disk, and the largest of them."""

    kind: Literal["disk_use"] = "disk_use"
    about: Literal["total", "largest"] = "total"
    run: Annotated[str, Field(description="Run; empty: all")] = ""
    made: Annotated[Made, Field(description="empty: everything")] = ""
