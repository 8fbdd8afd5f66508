# SPDX-License-Identifier: Apache-2.0
"""What packages offer as plugins: read from metadata that anybody may have written."""

from __future__ import annotations

import importlib.metadata
import os
import random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from installed_packages import GROUP, write_package

from lmcache_plugin_adapter.planner import installed_packages
from lmcache_plugin_adapter.planner.installed_packages import (
    MAX_BYTES,
    Packages,
    is_name,
    parse_entry_points,
    read_finders,
)

if TYPE_CHECKING:
    from pathlib import Path


def offers(*path: Path | str) -> dict[str, str]:
    """Return package and value of what is offered, by name."""
    found = Packages(map(str, path)).entry_points
    return {name: f"{offer.package}: {offer.value}" for name, offer in found.items()}


def test_plugins_are_found_with_their_package(tmp_path: Path) -> None:
    """The group's entry points and no others; name and version as the metadata have them."""
    write_package(tmp_path, {"all_x": "acme.x:main", "worker_0_y": "acme.y:run.it"}, "Acme-Plugins")
    assert offers(tmp_path) == {
        "all_x": "Acme-Plugins 1.0: acme.x:main",
        "worker_0_y": "Acme-Plugins 1.0: acme.y:run.it",
    }


def test_the_first_package_of_a_name_hides_later_ones(tmp_path: Path) -> None:
    """As for ``importlib.metadata``, whatever its name's spelling; also what only they offer."""
    sites = [tmp_path / name for name in "abc"]
    write_package(sites[0], {"all_x": "new:main"}, "acme-plugins", "2.0")
    write_package(sites[1], {"all_x": "old:main", "all_gone": "old:gone"}, "Acme.Plugins", "1.0")
    write_package(sites[2], {}, "other")
    for order in (sites, sites[::-1]):
        path = [str(site) for site in order]
        first = next(
            found
            for found in importlib.metadata.distributions(path=path)
            if found.metadata["Name"].lower().startswith("acme")
        )
        expected = {p.name: p.value for p in first.entry_points if p.group == GROUP}
        assert {name: o.value for name, o in Packages(path).entry_points.items()} == expected
    assert Packages(map(str, sites)).hidden == {}


def test_a_package_without_plugins_hides_an_older_one_with_some(tmp_path: Path) -> None:
    """What an upgrade dropped is not brought back by what lies around."""
    metadata = write_package(tmp_path / "a", {}, version="2.0")
    (metadata / "entry_points.txt").unlink()
    write_package(tmp_path / "b", {"all_x": "old:main"}, version="1.0")
    assert offers(tmp_path / "a", tmp_path / "b") == {}
    assert list(offers(tmp_path / "b")) == ["all_x"]


def test_of_two_packages_with_one_name_the_first_counts(tmp_path: Path) -> None:
    """And the other is known."""
    write_package(tmp_path / "a", {"all_x": "a:main"}, "a")
    write_package(tmp_path / "b", {"all_x": "b:main"}, "b")
    packages = Packages([str(tmp_path / "a"), str(tmp_path / "b")])
    assert packages.entry_points["all_x"].value == "a:main"
    assert [other.value for other in packages.hidden["all_x"]] == ["b:main"]
    doubled = Packages([str(tmp_path / "a")] * 2 + [f"{tmp_path}/b/../a"])
    assert doubled.hidden == {}


def test_the_order_of_a_listing_does_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two packages of one directory that offer the same: always the same one."""
    for project in "abcdef":
        write_package(tmp_path, {"all_x": f"{project}:main"}, project)
    real = os.scandir

    class Shuffled:
        def __init__(self, path: str) -> None:
            self.entries = list(real(path))
            random.shuffle(self.entries)

        def __enter__(self) -> list[os.DirEntry[str]]:
            return self.entries

        def __exit__(self, *_: object) -> None:
            """Nothing is open."""

    monkeypatch.setattr(os, "scandir", Shuffled)
    assert {Packages([str(tmp_path)]).entry_points["all_x"].value for _ in range(9)} == {"a:main"}


def test_an_egg_info_beside_its_source_counts(tmp_path: Path) -> None:
    """As ``setup.py develop`` leaves it; a file of that name holds no plugins."""
    metadata = tmp_path / "acme.egg-info"
    metadata.mkdir()
    (metadata / "entry_points.txt").write_text(f"[{GROUP}]\nall_x = acme:main\n")
    (metadata / "PKG-INFO").write_text("Name: Acme\nVersion: 0.3\n")
    (tmp_path / "other.egg-info").write_text("Name: other\n")
    assert offers(tmp_path) == {"all_x": "Acme 0.3: acme:main"}


def test_a_relative_entry_is_relative_to_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The empty one is the working directory itself, as on Python's own path."""
    write_package(tmp_path / "lib", {"all_x": "acme:main"})
    monkeypatch.chdir(tmp_path)
    assert list(offers("lib")) == ["all_x"]
    monkeypatch.chdir(tmp_path / "lib")
    assert list(offers("")) == ["all_x"]


def test_what_is_no_directory_is_passed_over(tmp_path: Path) -> None:
    """Python's own path names an archive that is not there; others name files."""
    (tmp_path / "file").write_text("")
    bad = [tmp_path / "file", tmp_path / "python311.zip", "/dev/null", "/proc/self/mem/x"]
    packages = Packages([*map(str, bad), "a\0b"])
    assert packages.entry_points == {}
    assert len(packages.troubles) == 1
    assert "a\\x00b' cannot be read: " in packages.troubles[0]


def test_metadata_of_any_kind_hold_nobody_up(tmp_path: Path) -> None:
    """Huge, binary, a FIFO, a directory, a loop of links: the others are found, and it is said."""

    def entry(project: str) -> Path:
        return write_package(tmp_path, {"all_x": "x:y"}, project) / "entry_points.txt"

    with entry("huge").open("a") as file:
        file.truncate(MAX_BYTES + 1)
    entry("binary").write_bytes(
        bytes(range(256)) * 99 + f"\n[{GROUP}]\nall_b\xff=\0:\x1b\n".encode()
    )
    for project in ("fifo", "directory", "loop"):
        entry(project).unlink()
    os.mkfifo(tmp_path / "fifo-1.0.dist-info" / "entry_points.txt")
    (tmp_path / "directory-1.0.dist-info" / "entry_points.txt").mkdir()
    loop = tmp_path / "loop-1.0.dist-info" / "entry_points.txt"
    loop.symlink_to(loop)
    (tmp_path / "link-1.0.dist-info").symlink_to("/nowhere")
    write_package(tmp_path, {"all_good": "good:main"}, "zzz")
    packages = Packages([str(tmp_path)])
    assert list(packages.entry_points) == ["all_good"]
    said = "\n".join(packages.troubles)
    for project in ("huge", "fifo", "directory", "loop"):
        assert f"{project}-1.0.dist-info/entry_points.txt' cannot be read: " in said
    assert "it is larger than 1,024 KiB" in said
    assert len(packages.troubles) == 4


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_metadata_that_may_not_be_read_are_said(tmp_path: Path) -> None:
    """A file, or a whole directory."""
    (write_package(tmp_path / "a", {"all_x": "x:y"}) / "entry_points.txt").chmod(0)
    write_package(tmp_path / "b", {"all_x": "x:y"})
    (tmp_path / "b").chmod(0)
    try:
        packages = Packages([str(tmp_path / "a"), str(tmp_path / "b")])
    finally:
        (tmp_path / "b").chmod(0o755)
    assert packages.entry_points == {}
    assert [text.endswith("permission denied") for text in packages.troubles] == [True, True]


def test_names_lead_nowhere(tmp_path: Path) -> None:
    """No path, no escape sequence, no line feed gets into a name that is shown or run."""
    bad = ["../../etc/x", "all_x.py", "all x", "all_\x1b[31m", "a" * 101, "all_\u00e9", "[x", ""]
    write_package(tmp_path, dict.fromkeys(bad, "acme:main"))
    assert offers(tmp_path) == {}
    assert not any(map(is_name, bad))
    assert is_name("WORKER_0-x9")


def test_what_a_package_calls_itself_is_shown_on_one_line(tmp_path: Path) -> None:
    """Its name and version are bounded and escaped; without metadata its directory tells them."""
    metadata = write_package(tmp_path, {"all_x": "acme:main"})
    (metadata / "METADATA").write_bytes(b"Name: \x1b[31mAcme\r\xff\nVersion: " + b"9" * 100_000)
    (shown,) = (offer.package for offer in Packages([str(tmp_path)]).entry_points.values())
    assert shown.isprintable()
    assert len(shown) < 250
    (metadata / "METADATA").unlink()
    assert offers(tmp_path) == {"all_x": "acme_plugins 1.0: acme:main"}
    (metadata / "METADATA").mkdir()
    assert offers(tmp_path) == {"all_x": "acme_plugins 1.0: acme:main"}


def test_progress_is_told_in_a_large_directory(tmp_path: Path) -> None:
    """So that only a directory that does not answer counts as hung."""
    for number in range(600):
        (tmp_path / f"{number}.py").touch()
    calls: list[int] = []
    Packages([str(tmp_path)], lambda: calls.append(1))
    assert len(calls) == 3


def test_progress_is_told_while_many_packages_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is read from a disk that may be slow: all of them together take longer than patience."""
    for number in range(100):
        write_package(tmp_path, {f"all_{number}": "acme:main"}, f"acme-{number}")
    told: list[str] = []
    read = installed_packages.read_bounded

    def reading(path: str, most: int) -> bytes:
        told.append("read")
        return read(path, most)

    monkeypatch.setattr(installed_packages, "read_bounded", reading)
    Packages([str(tmp_path)], lambda: told.append("progress"))
    assert told.count("read") == 100
    assert max(map(len, "".join(word[0] for word in told).split("p"))) <= 20


@given(st.text(st.characters(codec="utf-8"), max_size=300))
def test_any_text_is_read(text: str) -> None:
    """And what is found in it stands on one line of it."""
    for name, value in parse_entry_points(f"[{GROUP}]\n{text}", GROUP).items():
        assert name == name.strip()
        assert len((name + value).splitlines()) <= 1


@given(
    st.dictionaries(
        st.from_regex(r"[A-Za-z0-9_-]{1,20}", fullmatch=True),
        st.from_regex(r"[a-z.]{1,9}:[a-z.]{1,9}", fullmatch=True),
    )
)
def test_entry_points_are_read_as_python_reads_them(entries: dict[str, str]) -> None:
    """With sections before and behind, comments and blank lines."""
    lines = [f" {name}  =\t{value} \n\n# {name} = no\n" for name, value in entries.items()]
    text = f"all_no = x:y\n[a]\nall_no = x:y\n[{GROUP}]\n{''.join(lines)}\n[z]\nall_no = x:y\n"
    found = importlib.metadata.EntryPoints._from_text(text)  # type: ignore[attr-defined]
    assert {p.name: p.value for p in found if p.group == GROUP} == entries
    assert parse_entry_points(text, GROUP) == entries


def test_finders_of_editable_installations_are_read_and_not_run(tmp_path: Path) -> None:
    """The table is taken from the source; whatever else there is counts for nothing."""

    def finder(name: str, text: str | bytes) -> None:
        path = tmp_path / f"__editable___{name}_finder.py"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())

    finder("a", "raise SystemExit\nMAPPING: dict[str, str] = {'acme': '/src/acme', 1: '/x'}\n")
    finder("b", "MAPPING = {'acme': '/late', 'other.sub': '/src/sub', 'rel': 'src/rel'}\n")
    finder("c", f"MAPPING = {'[' * 99_999}\n")
    finder("d", "MAPPING = __import__('os').abort()\n")
    finder("e", "MAPPING = 7\n")
    finder("f", "nothing\n")
    finder("g", b"MAPPING = {}\xff\n")
    finder("i", "MAPPING = {[]: '/x'}\n")
    finder("h", "MAPPING = {'huge': '/x'}\n" + "#" * (1 << 18))
    packages = Packages([str(tmp_path)])
    assert len(packages.finders) == 9
    assert {name: path for name, (path, _) in read_finders(sorted(packages.finders)).items()} == {
        "acme": "/src/acme",
        "other.sub": "/src/sub",
    }
