# SPDX-License-Identifier: Apache-2.0
"""What locations hold: real directories with links, FIFOs, loops and everything else."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lmcache_plugin_adapter.planner import location_search
from lmcache_plugin_adapter.planner.discovery import Scan, scan
from lmcache_plugin_adapter.planner.file_names import PluginName

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Path]:
    """Write files below the test's directory; return the last one."""

    def write(*names: str) -> Path:
        path = tmp_path
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("x")
        return path

    return write


def found(result: Scan, top: Path, kind: str = "file") -> list[str]:
    """Return the paths found, relative to ``top``."""
    return [os.path.relpath(item.path, top) for item in result.entries if item.kind == kind]


def plugins(result: Scan, top: Path) -> list[str]:
    """Return the paths of the files that are plugins by their names."""
    return [
        os.path.relpath(item.path, top)
        for item in result.entries
        if item.kind == "file" and isinstance(item.name, PluginName)
    ]


def said(result: Scan) -> list[str]:
    """Return the texts of the problems, each of which must be one line."""
    assert all(problem.text.isprintable() for problem in result.problems)
    return [problem.text for problem in result.problems]


def test_a_file_and_a_directory_are_locations(make: Callable[..., Path], tmp_path: Path) -> None:
    """A directory is searched to its depths, in the order of paths."""
    make("d/b/worker_2.py", "d/a/b/c/worker_1.py", "d/worker_3.py", "d/a.py", "f.py")
    result = scan([str(tmp_path / "f.py"), str(tmp_path / "d")])
    assert found(result, tmp_path) == [
        "d/a.py",
        "d/a/b/c/worker_1.py",
        "d/b/worker_2.py",
        "d/worker_3.py",
        "f.py",
    ]
    assert result.complete
    assert said(result) == []
    by_path = {item.path: item for item in result.entries}
    assert by_path[str(tmp_path / "d/a/b/c/worker_1.py")].relative == "a/b/c/worker_1.py"
    assert by_path[str(tmp_path / "f.py")].relative == "f.py"
    assert by_path[str(tmp_path / "f.py")].is_location


def test_directories_that_start_with_a_dot_or_underscore_are_not_searched(
    make: Callable[..., Path], tmp_path: Path
) -> None:
    """Below a location; the location itself may be called anything."""
    make(".git/worker.py", "_lib/worker.py", "a/__pycache__/worker.py", "a/_x/b/worker.py")
    make("a/worker.py")
    assert found(scan([str(tmp_path)]), tmp_path) == ["a/worker.py"]
    assert found(scan([str(tmp_path)]), tmp_path, "directory") == [".git", "_lib", "a/_x"]
    for hidden in (".git", "_lib"):
        location = tmp_path / hidden
        assert plugins(scan([str(location)]), location) == ["worker.py"]
    both = scan([str(tmp_path), str(tmp_path / "_lib")])
    assert plugins(both, tmp_path) == ["_lib/worker.py", "a/worker.py"]


def test_a_hidden_file_runs_where_it_is_named_as_a_location(make: Callable[..., Path]) -> None:
    """Its directory's location skips it, its own does not, in either order."""
    file = make("d/.worker_x.py")
    for locations in ([file, file.parent], [file.parent, file]):
        result = scan([str(location) for location in locations])
        assert plugins(result, file.parent) == [".worker_x.py"]


def test_each_path_of_overlapping_locations_is_there_once(
    make: Callable[..., Path], tmp_path: Path
) -> None:
    """Also when a location is written in another way."""
    make("d/e/worker.py")
    ways = ["d", "d/e", "d/e/worker.py", "d//e/.", "d"]
    result = scan([f"{tmp_path}/{way}" for way in ways])
    assert found(result, tmp_path) == ["d/e/worker.py"]


def test_a_relative_location_is_relative_to_the_working_directory(
    make: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The paths found are absolute all the same."""
    make("d/worker.py")
    monkeypatch.chdir(tmp_path)
    for location in ("d", "./d", "."):
        assert found(scan([location]), tmp_path) == ["d/worker.py"]


def test_loops_of_links_end(make: Callable[..., Path], tmp_path: Path) -> None:
    """A link to the directory above, two that lead to each other, and one to itself."""
    make("a/worker.py", "b/worker.py")
    (tmp_path / "a" / "up").symlink_to("..")
    (tmp_path / "a" / "b").symlink_to("../b")
    (tmp_path / "b" / "a").symlink_to("../a")
    (tmp_path / "worker_self.py").symlink_to("worker_self.py")
    result = scan([str(tmp_path)])
    assert found(result, tmp_path) == ["a/worker.py", "b/worker.py"]
    [broken] = [item for item in result.entries if item.kind == "broken"]
    assert "leads back to itself" in broken.trouble


def test_a_directory_is_searched_by_its_real_path_if_it_has_one_here(
    make: Callable[..., Path], tmp_path: Path
) -> None:
    """A link that sorts before it does not take its place."""
    make("d/z/worker.py", "outside/worker.py")
    (tmp_path / "d" / "a").symlink_to("z")
    (tmp_path / "d" / "b").symlink_to("../outside")
    result = scan([str(tmp_path / "d")])
    assert found(result, tmp_path) == ["d/b/worker.py", "d/z/worker.py"]
    assert [item.linked for item in result.entries] == [True, False]


def config_map(top: Path, *names: str) -> None:
    """Lay files out as Kubernetes mounts a ConfigMap."""
    dated = top / "..2026_11_22_07_06_56.1234"
    for name in names:
        (dated / name).parent.mkdir(parents=True, exist_ok=True)
        (dated / name).write_text("x")
    (top / "..data").symlink_to(dated.name)
    for name in {name.split("/")[0] for name in names}:
        (top / name).symlink_to(f"..data/{name}")


def test_a_config_map_shows_each_file_once_under_its_own_name(tmp_path: Path) -> None:
    """Through the links at the top, not through ..data or the dated directory."""
    config_map(tmp_path, "worker_a.py", "all_b.sh", "sub/worker_c.py", "sub/worker_d.py")
    result = scan([str(tmp_path)])
    names = ["all_b.sh", "sub/worker_c.py", "sub/worker_d.py", "worker_a.py"]
    assert plugins(result, tmp_path) == names
    assert len(result.entries) == 4


def test_a_config_map_below_a_location_is_the_same(tmp_path: Path) -> None:
    """The location is the directory that it is mounted in."""
    (tmp_path / "mount").mkdir()
    config_map(tmp_path / "mount", "worker_a.py")
    assert plugins(scan([str(tmp_path)]), tmp_path) == ["mount/worker_a.py"]


def test_what_is_no_file_is_noted_and_never_opened(tmp_path: Path) -> None:
    """A FIFO would wait for a writer for ever."""
    os.mkfifo(tmp_path / "worker_fifo.py")
    server = socket.socket(socket.AF_UNIX)
    server.bind(os.path.relpath(tmp_path / "worker_sock"))
    (tmp_path / "worker_null").symlink_to("/dev/null")
    result = scan([str(tmp_path)])
    server.close()
    assert [(item.file_name, item.kind, item.trouble) for item in result.entries] == [
        ("worker_fifo.py", "special", "it is a FIFO"),
        ("worker_null", "special", "it is a character device"),
        ("worker_sock", "special", "it is a socket"),
    ]


def test_a_location_that_is_a_fifo_is_a_warning(tmp_path: Path) -> None:
    """And nobody waits."""
    os.mkfifo(tmp_path / "pipe")
    [text] = said(scan([str(tmp_path / "pipe")]))
    assert text == (
        f"Location '{tmp_path}/pipe' is a FIFO, neither a file nor a directory: it is ignored"
    )


def test_each_bad_location_is_one_line_and_the_others_go_on(
    make: Callable[..., Path], tmp_path: Path
) -> None:
    """Missing, below a file, too long, with a NUL, empty, a loop; then a good one."""
    good = make("d/worker.py").parent
    (tmp_path / "empty").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    bad = [
        f"{tmp_path}/missing",
        f"{good}/worker.py/x",
        "/" + "x" * 300,
        "/a\0b",
        f"{tmp_path}/empty",
        f"{tmp_path}/loop",
        f"{tmp_path}/new\nline",
    ]
    result = scan([*bad, str(good)])
    texts = said(result)
    assert [problem.level for problem in result.problems] == ["warning"] * len(bad)
    reasons = [
        "does not exist",
        "not a directory",
        "file name too long",
        "null",
        "holds no plugins",
        "symbolic links",
        "does not exist",
    ]
    for text, reason in zip(texts, reasons, strict=True):
        assert reason in text
    assert plugins(result, good) == ["worker.py"]


def test_a_missing_relative_location_has_its_absolute_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It starts at the working directory, not at the configuration."""
    monkeypatch.chdir(tmp_path)
    (text,) = said(scan(["plugins/x.sh"]))
    assert text.endswith(
        f"does not exist: no plugins from there; this is '{tmp_path}/plugins/x.sh'"
    )


def test_a_broken_link_is_known_with_its_target(make: Callable[..., Path], tmp_path: Path) -> None:
    """Whoever reads it can mend it."""
    make("worker_a.py")
    (tmp_path / "worker_b.py").symlink_to("../gone.py")
    result = scan([str(tmp_path)])
    assert found(result, tmp_path) == ["worker_a.py"]
    [broken] = [item for item in result.entries if item.kind == "broken"]
    assert broken.trouble == "it is a link to '../gone.py', which does not exist"


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_directory_is_one_line(make: Callable[..., Path], tmp_path: Path) -> None:
    """The rest goes on."""
    make("a/worker.py", "locked/worker.py")
    (tmp_path / "locked").chmod(0)
    result = scan([str(tmp_path), str(tmp_path / "locked")])
    (tmp_path / "locked").chmod(0o755)
    assert plugins(result, tmp_path) == ["a/worker.py"]
    assert [text.rpartition(": permission denied")[1] for text in said(result)] != [""]


def test_a_directory_that_cannot_be_read_is_one_line(
    make: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same for every user: the system call is made to fail."""
    make("a/worker.py", "locked/worker.py", "vanished/worker.py")
    real = os.scandir

    def scandir(path: str):
        if path.endswith("locked"):
            raise PermissionError(13, "Permission denied", path)
        if path.endswith("vanished"):
            raise FileNotFoundError(2, "No such file or directory", path)
        return real(path)

    monkeypatch.setattr(location_search.os, "scandir", scandir)
    result = scan([str(tmp_path)])
    assert plugins(result, tmp_path) == ["a/worker.py"]
    assert said(result) == [
        f"Cannot read directory '{tmp_path}/locked': permission denied; no plugins from there"
    ]


def test_files_that_vanish_while_they_are_looked_at_are_left_out(
    make: Callable[..., Path], tmp_path: Path
) -> None:
    """An editor renames, a mount is updated: what is gone was never there."""
    make("d/worker_a.py", "d/worker_b.py", "d/e/worker_c.py", "d/f/worker_d.py")

    class Vanishing(location_search.LocationSearch):
        def _entry(self, entry, relative, linked):
            if entry.name == "worker_b.py":
                os.unlink(entry.path)
            if entry.name == "e":
                os.rename(entry.path, tmp_path / "elsewhere")
            return super()._entry(entry, relative, linked)

    search = Vanishing(str(tmp_path / "d"), lambda location: None)
    search.run()
    assert [item.relative for item in search.entries] == ["worker_a.py", "f/worker_d.py"]
    assert search.problems == []


def test_names_of_any_bytes_are_found(tmp_path: Path) -> None:
    """Names need not be UTF-8, nor stay on one line."""
    raw = b"worker_\xff\xfe\n \x1b[31m.py"
    with open(os.path.join(os.fsencode(tmp_path), raw), "wb"):
        pass
    [item] = scan([str(tmp_path)]).entries
    assert os.fsencode(item.file_name) == raw
    assert isinstance(item.name, PluginName)


def test_progress_tells_each_location_before_it_is_touched(
    make: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that one that hangs is known by its name."""
    make("a/worker.py", "b/worker.py")
    events: list[str] = []
    real = os.stat

    def stat(path: str, **options: object) -> os.stat_result:
        events.append(f"stat {path}")
        return real(path, **options)

    monkeypatch.setattr(location_search.os, "stat", stat)
    a, b = str(tmp_path / "a"), str(tmp_path / "b")
    scan([a, b], lambda location: events.append(f"progress {location}"))
    assert events == [f"progress {a}", f"stat {a}", f"progress {b}", f"stat {b}"]


def test_skipped_locations_are_not_touched(make: Callable[..., Path], tmp_path: Path) -> None:
    """They hang; the others are searched."""
    make("a/worker.py", "b/worker.py")
    a, b = str(tmp_path / "a"), str(tmp_path / "b")
    touched: list[str] = []
    result = scan([a, b], touched.append, frozenset({a}))
    assert touched == [b]
    assert plugins(result, tmp_path) == ["b/worker.py"]
    assert not result.complete


def test_ten_thousand_files_are_searched_fast(tmp_path: Path) -> None:
    """Well under the time after which a location counts as hung, with signs of life between."""
    directory = os.path.join(tmp_path, "many")
    os.mkdir(directory)
    for number in range(10_000):
        os.close(os.open(f"{directory}/module{number}_x.py", os.O_CREAT | os.O_WRONLY))
    os.close(os.open(f"{directory}/worker.py", os.O_CREAT | os.O_WRONLY))
    alive: list[str] = []
    start = time.process_time()
    result = scan([directory], alive.append)
    took = time.process_time() - start
    assert plugins(result, Path(directory)) == ["worker.py"]
    assert len(alive) > 10
    assert took < 2


def test_a_location_without_end_is_cut(
    make: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``/`` as a location does not keep the plugins of the others waiting for minutes."""
    monkeypatch.setattr(location_search, "MAX_ENTRIES", 10)
    make(*(f"{number}/worker.py" for number in range(20)))
    result = scan([str(tmp_path)])
    [text] = said(result)
    assert "more than 10 entries" in text
    assert not result.complete


def test_of_a_directory_without_end_no_more_is_listed(
    make: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A data store with millions of files in one directory costs no memory for all their names."""
    monkeypatch.setattr(location_search, "MAX_ENTRIES", 10)
    make(*(f"worker_{number}.py" for number in range(50)))
    listed: list[str] = []
    real = os.scandir

    class Listing:
        def __init__(self, path: str) -> None:
            self._listing = real(path)

        def __enter__(self) -> Iterator[os.DirEntry[str]]:
            for entry in self._listing:
                listed.append(entry.name)
                yield entry

        def __exit__(self, *error: object) -> None:
            self._listing.close()

    monkeypatch.setattr(location_search.os, "scandir", Listing)
    result = scan([str(tmp_path)])
    [text] = said(result)
    assert "more than 10 entries" in text
    assert not result.complete
    assert len(result.entries) == 10
    assert len(listed) == 11


def test_the_order_does_not_depend_on_the_file_system(
    make: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever order a directory is listed in, the result is the same."""
    make("b/worker.py", "a/worker.py", "worker_2.py", "worker_1.py", "c")
    (tmp_path / "l1").symlink_to("b")
    forward = scan([str(tmp_path)])
    real = os.scandir

    class Backwards:
        def __init__(self, path: str) -> None:
            with real(path) as listing:
                self._entries = sorted(listing, key=lambda entry: entry.name, reverse=True)

        def __enter__(self):
            return iter(self._entries)

        def __exit__(self, *error: object) -> None:
            pass

    monkeypatch.setattr(location_search.os, "scandir", Backwards)
    assert scan([str(tmp_path)]) == forward
