# SPDX-License-Identifier: Apache-2.0
"""Locations: where they come from, how they are split, expanded and merged."""

from __future__ import annotations

import os
import pwd
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmcache_plugin_adapter.configuration.locations import (
    SETTINGS_KEY,
    VARIABLES,
    LocationError,
    expand,
    merge_locations,
)

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("raw", "own", "merged"),
    [
        (None, None, []),
        (None, (), []),
        ([], "", []),
        ("", [], []),
        ("/a", None, ["/a"]),
        (["/a", "/b"], ["/c"], ["/a", "/b", "/c"]),
        (("/a",), "/b", ["/a", "/b"]),
        (["/b", "/a", "/b"], ["/a"], ["/b", "/a"]),
        (["/a/", "/a", "//a", "/./a"], None, ["/a"]),
        (["/a/../b", "/b"], None, ["/a/../b", "/b"]),
        (["plugins/", "./plugins"], None, ["plugins"]),
        (["."], ["./"], ["."]),
        (["/"], None, ["/"]),
        (["/a,/b"], None, ["/a,/b"]),
        (["[/a]"], None, ["[/a]"]),
        (["/a b", " /c"], None, ["/a b", " /c"]),
        (["pkg:x", "pkg:x", "pkg:~/$y"], None, ["pkg:x", "pkg:~/$y"]),
        (["./pkg:x", ".//pkg:x/", "pkg:x"], None, ["./pkg:x", "pkg:x"]),
    ],
)
def test_locations_are_merged_in_order(raw: object, own: object, merged: list[str]) -> None:
    """LMCache's first, each one once, tidied but not resolved."""
    assert merge_locations(raw, own, {}) == (merged, [])


def test_a_relative_location_is_the_same_as_its_absolute_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Relative means relative to the working directory; the first spelling stays."""
    monkeypatch.chdir(tmp_path)
    assert merge_locations(["p", f"{tmp_path}/p"], None, {}) == (["p"], [])


@pytest.mark.parametrize("name", VARIABLES)
@pytest.mark.parametrize(
    ("text", "merged"),
    [
        ("/a", ["/a"]),
        ("/a,/b", ["/a", "/b"]),
        (" /a , ,/b, ", ["/a", "/b"]),
        ("'/a,/b'", ["/a", "/b"]),
        ('["/a", "/b,c"]', ["/a", "/b,c"]),
        ("[/a, /b c ]", ["/a", "/b c"]),
        ("[/a, '/b, it''s', \"/c\\t\",]", ["/a", "/b, it's", "/c\t"]),
        ("[]", []),
        ("[ ]", []),
        ("~/p,$DIR/q,${DIR}", ["/home/me/p", "/dir/q", "/dir"]),
    ],
)
def test_the_variable_is_split(name: str, text: str, merged: list[str]) -> None:
    """LMCache makes one list item of the variable, which holds a list or commas."""
    environ = {name: text, "HOME": "/home/me", "DIR": "/dir"}
    unquoted = text.strip("'") if text.startswith("'") else text.strip()
    assert merge_locations([unquoted], None, environ) == (merged, [])
    assert merge_locations(unquoted, None, environ) == (merged, [])


@pytest.mark.parametrize(
    "text", ["[/a", "[/a, [/b]]", "[/a] /b", "[,]", "['/a]", '["/a"', "[/a, {b: c}]"]
)
def test_a_variable_that_is_no_list_is_named(text: str) -> None:
    """It begins like a list: better nothing than a wrong location."""
    merged, problems = merge_locations([text], ["/c"], {VARIABLES[0]: text})
    assert merged == ["/c"]
    assert len(problems) == 1
    assert f"'{VARIABLES[0]}'" in problems[0].text


def test_items_of_a_variables_list_are_named_by_index() -> None:
    """What is no text in the list has its place said."""
    text = '["/a", 5]'
    merged, problems = merge_locations([text], None, {VARIABLES[0]: text})
    assert merged == ["/a"]
    assert f"'{VARIABLES[0]}[1]'" in problems[0].text


def test_a_value_that_exists_is_never_split(tmp_path: Path) -> None:
    """A comma is a fine character in a path."""
    path = tmp_path / "a,b"
    path.mkdir()
    assert merge_locations([str(path)], None, {VARIABLES[0]: str(path)}) == ([str(path)], [])
    short = "$DIR/a,b"
    environ = {VARIABLES[0]: short, "DIR": str(tmp_path)}
    assert merge_locations([short], None, environ) == ([str(path)], [])


def test_a_value_of_the_file_is_not_split() -> None:
    """Only what equals the variable is."""
    environ = {VARIABLES[0]: "/x,/y"}
    assert merge_locations(["/a,/b"], None, environ)[0] == ["/a,/b"]
    assert merge_locations(["/x,/y", "/z"], None, environ)[0] == ["/x,/y", "/z"]


@pytest.mark.parametrize(
    ("raw", "own", "level", "text"),
    [
        ({"a": 1}, None, "error", "'runtime_plugin_locations': it is a mapping"),
        (5, None, "error", "'runtime_plugin_locations': it is a whole number"),
        (["/ok", None], None, "error", "'runtime_plugin_locations[1]': it is null"),
        ([["/a"]], None, "error", "'runtime_plugin_locations': it is a list"),
        (None, True, "error", f"'{SETTINGS_KEY}': it is a boolean"),
        (None, ["/ok", 3], "error", f"'{SETTINGS_KEY}[1]': it is a whole number"),
        (None, ["  "], "warning", f"'{SETTINGS_KEY}': it is empty"),
        (["$NO/x"], None, "warning", "variable 'NO' is not set"),
        (["${NO}"], None, "warning", "variable 'NO' is not set"),
        (["$EMPTY"], None, "warning", "empty once its variables are expanded"),
        (["~no such user/x"], None, "warning", "no user 'no such user'"),
        (["/a\0b"], None, "warning", "NUL"),
        (["/a\ud800"], None, "warning", "cannot be encoded"),
    ],
)
def test_what_is_no_location_is_named_and_left_out(
    raw: object, own: object, level: str, text: str
) -> None:
    """The message has the full key and the index; the others go on."""
    merged, problems = merge_locations(raw, own, {"EMPTY": ""})
    assert merged in ([], ["/ok"])
    assert [problem.level for problem in problems] == [level]
    assert text in problems[0].text
    assert problems[0].text.isprintable()


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("~", "/home/me"),
        ("~/x", "/home/me/x"),
        ("/~/x", "/~/x"),
        ("$A-$B", "1-2"),
        ("${A}B", "1B"),
        ("a$", "a$"),
        ("$$A", "$1"),
        ("100%", "100%"),
    ],
)
def test_expansion(text: str, expanded: str) -> None:
    """As a shell does it, for what stands in paths."""
    assert expand(text, {"HOME": "/home/me", "A": "1", "B": "2"}) == expanded


def test_home_comes_from_the_user_database_where_the_variable_is_missing() -> None:
    """As a shell does it for ``~USER``."""
    someone = pwd.getpwall()[0]
    assert expand(f"~{someone.pw_name}", {}) == someone.pw_dir.rstrip("/")
    try:
        me = pwd.getpwuid(os.getuid())
    except KeyError:  # as in OpenShift, which assigns a user id without an entry
        with pytest.raises(LocationError, match="HOME"):
            expand("~/x", {})
    else:
        assert expand("~/x", {}) == f"{me.pw_dir.rstrip('/')}/x"


def test_a_user_without_an_entry(monkeypatch) -> None:
    """OpenShift assigns such user ids; without HOME, ``~`` cannot be expanded."""

    def no_entry(_uid: int) -> None:
        raise KeyError

    monkeypatch.setattr(pwd, "getpwuid", no_entry)
    assert expand("~/x", {"HOME": "/home/me"}) == "/home/me/x"
    with pytest.raises(LocationError, match="HOME is not set"):
        expand("~/x", {})


def test_an_unset_variable_is_not_expanded_to_nothing() -> None:
    """``$UNSET/plugins`` must not become ``/plugins``."""
    with pytest.raises(LocationError, match="'UNSET'"):
        expand("$UNSET/plugins", {})


TEXTS = st.text() | st.text(alphabet="[]',\"\\ ~$/ab{}:", max_size=12)
ITEMS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS | st.binary(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    max_leaves=8,
)


@given(ITEMS | st.lists(TEXTS), ITEMS | st.lists(TEXTS), st.none() | TEXTS)
def test_merging_never_raises(raw: object, own: object, variable: str | None) -> None:
    """Whatever is configured: usable locations, each once, and printable messages."""
    environ = {} if variable is None else {VARIABLES[0]: variable}
    for found in (raw, variable, [variable]):
        merged, problems = merge_locations(found, own, environ)
        assert len(set(merged)) == len(merged)
        for location in merged:
            assert os.fsencode(location)
            assert "\0" not in location
        assert all(problem.text.isprintable() for problem in problems)


@given(st.lists(st.from_regex(r"/[a-z0-9]{1,8}", fullmatch=True), min_size=1, unique=True))
def test_every_form_of_the_variable_gives_the_same(paths: list[str]) -> None:
    """Commas, a JSON list and a YAML list mean the same."""
    forms = (
        ",".join(paths),
        "[" + ", ".join(paths) + "]",
        str(paths),
        str(paths).replace("'", '"'),
    )
    for text in forms:
        assert merge_locations([text], None, {VARIABLES[1]: text}) == (paths, [])
