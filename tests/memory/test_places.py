"""Paths in and out of the store: what is inside the home goes by its place, and nothing else is touched."""

from __future__ import annotations

from pathlib import Path

from tests.fixtures.tables import table
from tunesmith.memory.places import HOME_MARK, Places

HERE = Places(Path("/a/ts"))


@table(
    ("text", "stored"),
    [
        ("/a/ts", "{}"),
        ("/a/ts/runs/r1", "{}/runs/r1"),
        ("/a/ts/r1 is missing. Its log is /a/ts/r1/a.log.", "{}/r1 is missing. Its log is {}/r1/a.log."),
        ('"/a/ts/x", model=/a/ts/y:/a/ts/z', '"{}/x", model={}/y:{}/z'),
        ("it lies in /a/ts.", "it lies in {}."),
        ("/a/ts-2/x", "/a/ts-2/x"),
        ("/a/ts.old/x", "/a/ts.old/x"),
        ("/a/tsx", "/a/tsx"),
        ("/mnt/a/ts/x", "/mnt/a/ts/x"),
        ("~/a/ts/x", "~/a/ts/x"),
        ("../a/ts/x", "../a/ts/x"),
        ("/a/ts/../other", "/a/ts/../other"),
        ("/a/ts/x/y/../../../other", "/a/ts/x/y/../../../other"),
        ("a/ts", "a/ts"),
        ("", ""),
    ],
)  # fmt: skip
def test_a_path_is_written_by_its_place_and_read_where_the_home_is(text: str, stored: str) -> None:
    assert HERE.stored(text) == stored.format(*[HOME_MARK] * 3)
    there = Places(Path("/b/other home"))
    now = HERE.stored(text).replace(HOME_MARK, "/b/other home")
    assert there.present(HERE.stored(text)) == now
    assert there.stored(now) == HERE.stored(text), "a second move finds it again"


def test_documents_are_changed_in_every_text_of_theirs_and_in_nothing_else() -> None:
    document = {"/a/ts/k": ["/a/ts/x", 1, None, {"p": Path("/a/ts/y"), "n": 0.5, "b": True}], "of": "/data/a/ts"}
    text = HERE.to_json(document)
    assert "/a/ts/" not in text.replace("/data/a/ts", "")
    assert HERE.from_json(text) == {**document, "/a/ts/k": ["/a/ts/x", 1, None, {"p": "/a/ts/y", "n": 0.5, "b": True}]}


def test_a_home_behind_a_link_is_known_by_both_names(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    places = Places(tmp_path / "link")
    for name in ("link", "real"):
        assert places.stored(str(tmp_path / name / "runs")) == f"{HOME_MARK}/runs"
    assert places.path(f"{HOME_MARK}/runs") == tmp_path / "link" / "runs"


def test_a_home_that_is_the_root_leaves_every_path_as_it_is() -> None:
    assert Places(Path("/")).stored("/etc/passwd") == "/etc/passwd"
