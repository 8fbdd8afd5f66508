# SPDX-License-Identifier: Apache-2.0
"""The plan: which files run in which process, under which names, and what is said."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmcache_plugin_adapter.configuration.settings import Settings, read_settings
from lmcache_plugin_adapter.contract.identity import ProcessIdentity, Role
from lmcache_plugin_adapter.planner.discovery import scan
from lmcache_plugin_adapter.planner.entry import Entry
from lmcache_plugin_adapter.planner.file_names import parse_name
from lmcache_plugin_adapter.planner.file_report import FileReport, report_files
from lmcache_plugin_adapter.planner.plan import Plan, make_plan
from lmcache_plugin_adapter.planner.plugin_files import PluginFiles
from lmcache_plugin_adapter.planner.selection import is_wanted, select, unique_names

if TYPE_CHECKING:
    from collections.abc import Callable

SCHEDULER = ProcessIdentity(Role.SCHEDULER, -1, 2)
WORKER_0 = ProcessIdentity(Role.WORKER, 0, 2)
WORKER_1 = ProcessIdentity(Role.WORKER, 1, 2)
FLEET = [SCHEDULER, WORKER_0, WORKER_1]
UNFILTERED = ProcessIdentity(None, 0, 1)
PATH = os.environ["PATH"]


@pytest.fixture
def top(tmp_path: Path) -> Path:
    """A safe directory for plugins, whatever umask the tests are run with."""
    directory = tmp_path / "plugins"
    directory.mkdir()
    return directory


@pytest.fixture
def make(top: Path) -> Callable[..., Path]:
    """Write plugins of these names; return the last one."""

    def write(*names: str, content: str = "print('hello')\n", mode: int = 0o644) -> Path:
        path = top
        for name in names:
            path = top / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
            path.chmod(mode)
        return path

    return write


def settings_of(**values: Any) -> Settings:
    """Return settings that are right."""
    settings, problems = read_settings({"runtime_plugins": values})
    assert problems == []
    return settings


def plan(*locations: Path | str, identity: ProcessIdentity = WORKER_0, **values: Any) -> Plan:
    """Plan for one process with this test's Python as the engine's."""
    texts = [str(location) for location in locations]
    files = PluginFiles(scan(texts), settings_of(**values), sys.executable, PATH)
    made = make_plan(identity, files)
    assert all(problem.text.isprintable() for problem in made.problems)
    return made


def names(made: Plan) -> list[str]:
    """Return the names of the plugins, refused ones too."""
    return [plugin.name for plugin in made.plugins]


def warnings(made: Plan) -> list[str]:
    """Return the texts of what is worse than a note and is about the test's own files."""
    return [problem.text for problem in made.problems if problem.level != "note"]


def check(top: Path, *fleet: ProcessIdentity, **values: Any) -> dict[str, FileReport]:
    """Check a directory; return the answers by path below it."""
    files = PluginFiles(scan([str(top)]), settings_of(**values), sys.executable, PATH)
    return {file.relative: file for file in report_files(fleet or FLEET, files)}


def test_each_process_gets_its_plugins_in_the_order_of_their_paths(
    top: Path, make: Callable[..., Path]
) -> None:
    """Scheduler, worker 0 and worker 1 of one directory."""
    make("worker_0_b.py", "scheduler_a.py", "all_z.sh", "sub/worker.py", "woker.py", "README.md")
    assert names(plan(top, identity=SCHEDULER)) == ["all_z", "scheduler_a"]
    assert names(plan(top, identity=WORKER_0)) == ["all_z", "worker", "worker_0_b"]
    assert names(plan(top, identity=WORKER_1)) == ["all_z", "worker"]


def test_a_planned_command_runs(top: Path, make: Callable[..., Path]) -> None:
    """With the arguments of its settings."""
    file = make("worker_a.py", content="import sys\nprint(sys.argv)\n")
    made = plan(top, plugins={"worker_a": {"args": ["--fast", "a b"]}})
    [plugin] = made.plugins
    assert plugin.path == str(file)
    assert plugin.refused is None
    output = subprocess.run(plugin.argv, stdout=subprocess.PIPE, check=True).stdout
    assert output.decode().strip() == str([str(file), "--fast", "a b"])
    facts = file.stat()
    assert plugin.key == (facts.st_dev, facts.st_ino)
    assert plugin.signature == (*plugin.key, facts.st_mtime_ns, facts.st_size)


def test_a_file_that_is_reached_often_runs_once(
    tmp_path: Path, top: Path, make: Callable[..., Path]
) -> None:
    """Overlapping locations, symbolic and hard links, a linked directory."""
    file = make("worker_b.py", "sub/worker_c.py")
    (top / "worker_a.py").symlink_to("worker_b.py")
    os.link(top / "worker_b.py", top / "worker_d.py")
    (tmp_path / "again").symlink_to(top)
    made = plan(tmp_path / "again", top, file, file.parent, tmp_path)
    assert len({plugin.key for plugin in made.plugins}) == len(made.plugins) == 2
    assert names(plan(top)) == ["worker_c", "worker_b"]


def test_one_file_under_two_names_runs_where_each_name_says(
    tmp_path: Path, top: Path, make: Callable[..., Path]
) -> None:
    """A link for each worker to the same code is a pattern, not a duplicate."""
    code = tmp_path / "code.py"
    code.write_text("pass\n")
    for rank in (0, 1):
        (top / f"worker_{rank}_x.py").symlink_to(code)
    assert names(plan(top, identity=WORKER_0)) == ["worker_0_x"]
    assert names(plan(top, identity=WORKER_1)) == ["worker_1_x"]
    assert names(plan(top, identity=SCHEDULER)) == []
    assert [file.status for file in check(top).values()] == ["runs", "runs"]


def test_a_config_map_runs_each_plugin_once(top: Path) -> None:
    """As Kubernetes mounts it."""
    dated = top / "..2026"
    dated.mkdir()
    (dated / "worker_a.py").write_text("pass\n")
    (top / "..data").symlink_to("..2026")
    (top / "worker_a.py").symlink_to("..data/worker_a.py")
    [plugin] = plan(top).plugins
    assert (plugin.name, plugin.path) == ("worker_a", str(top / "worker_a.py"))
    assert plugin.argv[-1] == os.fsencode(plugin.path)


def test_names_get_longer_where_they_collide(
    tmp_path: Path, top: Path, make: Callable[..., Path]
) -> None:
    """The stem, then the file name, then the path below the location, then the path."""
    make("worker_a.py", "worker_b.py", "worker_b.sh", "worker_c.py", "sub/worker_c.py")
    other = tmp_path / "other"
    other.mkdir(mode=0o755)
    (other / "worker_d.py").write_text("pass\n")
    make("worker_d.py")
    assert names(plan(top, other)) == [
        str(other / "worker_d.py"),
        "sub/worker_c.py",
        "worker_a",
        "worker_b.py",
        "worker_b.sh",
        "worker_c.py",
        str(top / "worker_d.py"),
    ]


def test_a_name_is_the_same_in_every_process(top: Path, make: Callable[..., Path]) -> None:
    """Also where the file that it collides with is switched off."""
    make("worker_b.py", "worker_b.sh")
    made = plan(top, plugins={"worker_b.sh": {"enabled": False}})
    assert names(made) == ["worker_b.py"]


def test_settings_are_found_by_any_name_and_the_most_specific_counts(
    top: Path, make: Callable[..., Path]
) -> None:
    """Stem, file name, path below the location."""
    make("worker_b.py", "sub/worker_b.py", "worker_b.sh", "worker_c.py")
    made = plan(
        top,
        stop_grace=9,
        plugins={
            "worker_b": {"stop_grace": 1},
            "worker_b.py": {"stop_grace": 2},
            "sub/worker_b.py": {"stop_grace": 3},
        },
    )
    graces = {os.path.relpath(plugin.path, top): plugin.stop_grace for plugin in made.plugins}
    assert graces == {
        "sub/worker_b.py": 3,
        "worker_b.py": 2,
        "worker_b.sh": 1,
        "worker_c.py": 9,
    }
    assert warnings(made) == []


def test_a_plugin_can_be_switched_off(top: Path, make: Callable[..., Path]) -> None:
    """It is not planned, and a check says why."""
    make("worker_a.py", "worker_b.py")
    values = {"plugins": {"worker_a": {"enabled": False}}}
    assert names(plan(top, **values)) == ["worker_b"]
    checked = check(top, **values)["worker_a.py"]
    assert checked.status == "disabled"
    assert checked.runs_on == ()


def test_settings_for_a_plugin_that_is_not_there_are_warned_about(
    tmp_path: Path, top: Path, make: Callable[..., Path]
) -> None:
    """With the name that was probably meant; not when a location is missing that may hold it."""
    make("worker_stats.py", "scheduler_x.py")
    values = {"plugins": {"worker_stat": {}, "scheduler_x": {}, "other": {}}}
    setting, why = "Setting 'extra_config.runtime_plugins.plugins", "no plugin has this name"
    assert warnings(plan(top, **values)) == [
        f"{setting}.worker_stat' has no effect: {why}; did you mean 'worker_stats'?",
        f"{setting}.other' has no effect: {why}",
    ]
    [missing] = warnings(plan(top, tmp_path / "missing", **values))
    assert "does not exist" in missing


def test_what_everyone_can_write_is_refused_with_its_mend(
    top: Path, make: Callable[..., Path]
) -> None:
    """The others run."""
    file = make("worker_b.py", mode=0o666)
    make("worker_a.py")
    made = plan(top)
    good, bad = made.plugins
    assert good.refused is None
    assert bad.argv == ()
    assert f"chmod go-w {file}" in (bad.refused or "")
    assert "allow_insecure_permissions: true" in (bad.refused or "")
    checked = check(top)["worker_b.py"]
    assert (checked.status, checked.command) == ("refused", ())
    assert checked.runs_on == (WORKER_0, WORKER_1)
    assert [problem.level for problem in checked.problems] == ["error"]


def test_one_setting_allows_what_everyone_can_write(top: Path, make: Callable[..., Path]) -> None:
    """It stays a warning; for a directory one, however many plugins it holds."""
    make("worker_a.py", "worker_b.py")
    top.chmod(0o777)
    made = plan(top, allow_insecure_permissions=True)
    assert [plugin.refused for plugin in made.plugins] == [None, None]
    assert warnings(made) == [f"Directory '{top}' can be written by everyone: chmod go-w {top}"]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("worker_x.py", "", "the file is empty"),
        ("worker_x.pl", "print 1;\n", "write its interpreter into the first line"),
        ("worker_x.rb", "#!/nowhere/ruby\n", "'/nowhere/ruby' does not exist"),
    ],
)
def test_what_cannot_run_is_refused_with_its_mend(
    top: Path, make: Callable[..., Path], name: str, content: str, words: str
) -> None:
    """And is an error of the check."""
    make(name, content=content)
    [plugin] = plan(top).plugins
    assert plugin.argv == ()
    assert words in (plugin.refused or "")
    checked = check(top)[name]
    assert checked.status == "refused"
    assert checked.problems[0].level == "error"


def test_a_missing_interpreter_is_one_warning_where_the_plugin_runs(
    top: Path, make: Callable[..., Path]
) -> None:
    """And nowhere else."""
    make("worker_0_x.py", content="#!/nowhere/python9\n")
    made = plan(top)
    why = "its interpreter '/nowhere/python9' does not exist"
    assert warnings(made) == [
        f"Plugin 'worker_0_x': {why}: it runs with '{sys.executable}' instead"
    ]
    assert made.plugins[0].refused is None
    assert warnings(plan(top, identity=WORKER_1)) == []


def test_misnamed_files_are_warned_about(top: Path, make: Callable[..., Path]) -> None:
    """Near-misses, and what LMCache's launcher would have run; on whichever node it is seen."""
    make("woker_0_x.py", "heartbeat.py", "some_module.py", "notes.md", "__init__.py", "tool.pl")
    make("scheduler_0_x.py")
    for identity in (SCHEDULER, WORKER_0, WORKER_1):
        one_word, no_id, near_miss = warnings(plan(top, identity=identity))
        assert "name it 'worker_0_x.py'" in near_miss
        assert "name it 'all_heartbeat.py'" in one_word
        assert "name it 'scheduler_x.py'" in no_id


def test_many_misnamed_files_are_counted(top: Path, make: Callable[..., Path]) -> None:
    """Ten lines and one that says how many more."""
    make(*(f"module{number}.py" for number in range(25)), "worker.py")
    texts = warnings(plan(top))
    assert len(texts) == 11
    assert texts[-1].startswith("15 more files")


def test_code_that_a_plugin_links_to_is_not_called_misnamed(
    top: Path, make: Callable[..., Path]
) -> None:
    """``worker_x.py -> heartbeat.py``: it does run."""
    make("heartbeat.py")
    (top / "worker_x.py").symlink_to("heartbeat.py")
    assert warnings(plan(top)) == []


def test_a_file_that_is_a_location_but_no_plugin_is_a_warning(make: Callable[..., Path]) -> None:
    """Somebody named it, so silence would be wrong."""
    for name in ("my_tool.py", "notes.md", "worker_x.py.bak"):
        file = make(name)
        [text] = [text for text in warnings(plan(file)) if "does not run" in text]
        assert str(file) in text
        [checked] = check(file, WORKER_0).values()
        assert checked.problems[0].level == "warning"


def test_a_broken_link_is_one_line_where_it_would_run(top: Path, make: Callable[..., Path]) -> None:
    """The rest runs."""
    make("worker_a.py")
    (top / "worker_0_b.py").symlink_to("gone.py")
    made = plan(top)
    assert names(made) == ["worker_a"]
    assert warnings(made) == [
        f"Cannot run '{top}/worker_0_b.py': it is a link to 'gone.py', which does not exist"
    ]
    assert warnings(plan(top, identity=WORKER_1)) == []
    assert check(top)["worker_0_b.py"].status == "refused"
    assert check(top, WORKER_1)["worker_0_b.py"].status == "ignored"


def test_without_a_role_everything_runs(top: Path, make: Callable[..., Path]) -> None:
    """As in LMCache's multiprocess server: only what cannot be a plugin is left out."""
    make("worker_5_x.py", "scheduler_0.py", "server.sh", "heartbeat.py", "my_tool.sh", "notes.md")
    make("Makefile", "_private.py", ".hidden.py")
    make("tool", content="#!/bin/sh\n", mode=0o755)
    expected = ["heartbeat", "my_tool", "scheduler_0", "server", "tool", "worker_5_x"]
    made = plan(top, identity=UNFILTERED)
    assert names(made) == expected
    assert warnings(made) == []
    assert names(plan(top, identity=WORKER_1, filter_by_role=False)) == expected
    checked = check(top, UNFILTERED)
    assert checked["heartbeat.py"].status == "runs"
    assert checked["Makefile"].status == "no-role"


def test_a_check_tells_what_becomes_of_every_file(top: Path, make: Callable[..., Path]) -> None:
    """Status, processes and the level of what is said about it."""
    make("scheduler_a.py", "worker_0_a.py", "all_a.sh", "server_a.py", "worker_7.py")
    make("scheduler_3_x.py", "woker.py", "utils.py", "notes.txt", ".hidden", "_lib/worker.py")
    make("worker_dup.py")
    (top / "worker_dup2.py").symlink_to("worker_dup.py")
    os.mkfifo(top / "worker_fifo")
    told = {
        relative: (
            file.status,
            [identity.label for identity in file.runs_on],
            [problem.level for problem in file.problems],
        )
        for relative, file in check(top).items()
    }
    assert told == {
        ".hidden": ("ignored", [], ["note"]),
        "_lib": ("ignored", [], ["note"]),
        "all_a.sh": ("runs", ["scheduler", "worker 0", "worker 1"], []),
        "notes.txt": ("ignored", [], ["note"]),
        "scheduler_3_x.py": ("elsewhere", [], ["warning"]),
        "scheduler_a.py": ("runs", ["scheduler"], []),
        "server_a.py": ("elsewhere", [], ["note"]),
        "utils.py": ("no-role", [], ["note"]),
        "woker.py": ("no-role", [], ["warning"]),
        "worker_0_a.py": ("runs", ["worker 0"], []),
        "worker_7.py": ("elsewhere", [], ["warning"]),
        "worker_dup.py": ("runs", ["worker 0", "worker 1"], []),
        "worker_dup2.py": ("duplicate", [], ["note"]),
        "worker_fifo": ("ignored", [], ["note"]),
    }


def test_a_check_shows_hints_that_a_run_does_not(top: Path, make: Callable[..., Path]) -> None:
    """Another Python by its path is no reason to warn at every start."""
    other = top.parent / "python3"
    other.write_text("#!/bin/sh\n")
    other.chmod(0o755)
    make("worker_x.py", content=f"#!{other}\n")
    assert warnings(plan(top)) == []
    checked = check(top)["worker_x.py"]
    assert checked.status == "runs"
    assert checked.command == (os.fsencode(other), os.fsencode(top / "worker_x.py"))
    assert [problem.level for problem in checked.problems] == ["warning"]


def test_progress_names_the_location_whose_files_are_looked_at(
    tmp_path: Path, top: Path, make: Callable[..., Path]
) -> None:
    """After the search too: a mount may begin to hang at any time."""
    make("worker_a.py")
    other = tmp_path / "other"
    other.mkdir()
    (other / "worker_b.py").write_text("pass\n")
    told: list[str] = []
    locations = [str(top), str(other)]
    files = PluginFiles(
        scan(locations, told.append), settings_of(), sys.executable, PATH, told.append
    )
    make_plan(WORKER_0, files)
    assert told[:2] == locations
    assert sorted(told[2:]) == sorted(locations)


def test_a_skipped_location_is_left_alone(
    tmp_path: Path, top: Path, make: Callable[..., Path]
) -> None:
    """It hangs."""
    make("worker_a.py")
    other = tmp_path / "other"
    other.mkdir()
    skip = frozenset({str(other)})
    told: list[str] = []
    scanned = scan([str(other), str(top)], told.append, skip)
    made = make_plan(
        WORKER_0, PluginFiles(scanned, settings_of(), sys.executable, PATH, told.append)
    )
    assert names(made) == ["worker_a"]
    assert str(other) not in told


def made_up(path: str, inode: int, linked: bool, executable: bool) -> Entry:
    """Make up a file that was found."""
    location, _, relative = path.partition("//")
    mode = 0o100755 if executable else 0o100644
    facts = os.stat_result((mode, inode, 1, 1, 0, 0, 0, 0, 0, 0))
    name = parse_name(os.path.basename(relative), executable=executable)
    return Entry(f"{location}/{relative}", location, relative, "file", name, "", facts, linked)


PATHS = st.builds(
    lambda location, directory, role, worker, description, extension: (
        f"/{location}//{directory}{role}{worker}{description}{extension}"
    ),
    st.sampled_from("ab"),
    st.sampled_from(["", "s/", "t/u/"]),
    st.sampled_from(["worker", "all", "scheduler", "Worker", "woker", "x"]),
    st.sampled_from(["", "_0", "_1", "_00"]),
    st.sampled_from(["", "_a", "_a.py", "_b"]),
    st.sampled_from(["", ".py", ".sh", ".md"]),
)
FILES = st.lists(
    st.builds(made_up, PATHS, st.integers(1, 12), st.booleans(), st.booleans()),
    max_size=14,
    unique_by=lambda found: found.path,
)
IDENTITIES = st.sampled_from([*FLEET, UNFILTERED])


@given(FILES, IDENTITIES, st.randoms(use_true_random=False))
def test_the_same_files_in_any_order_are_chosen_alike(
    files: list[Entry], identity: ProcessIdentity, order: random.Random
) -> None:
    """The order in which a directory lists its files does not matter."""
    shuffled = list(files)
    order.shuffle(shuffled)
    assert select(shuffled, identity) == select(files, identity)
    assert unique_names(shuffled) == unique_names(files)


@given(FILES, IDENTITIES)
def test_every_file_that_matches_runs_exactly_once(
    files: list[Entry], identity: ProcessIdentity
) -> None:
    """Each file (device and inode) that any path of a matching name leads to."""
    chosen = select(files, identity)
    keys = [found.key for found in chosen]
    assert len(set(keys)) == len(keys)
    assert set(keys) == {found.key for found in files if is_wanted(found, identity)}
    assert [found.path for found in chosen] == sorted(found.path for found in chosen)


@given(FILES)
def test_names_are_unique(files: list[Entry]) -> None:
    """Two paths share a name only if they lead to the same file; a name is never empty."""
    called = unique_names(files)
    assert set(called) == {found.path for found in files}
    by_name: dict[str, tuple[int, int]] = {}
    for found in files:
        assert called[found.path]
        assert by_name.setdefault(called[found.path], found.key) == found.key


@pytest.fixture
def as_user(monkeypatch: pytest.MonkeyPatch) -> int:
    """Make the engine's user one who is not root."""
    monkeypatch.setattr(os, "geteuid", lambda: 1)
    monkeypatch.setattr(os, "getegid", lambda: 1)
    return 1


def test_a_root_engine_refuses_an_unknown_user(
    top: Path, make: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line says why the plugin does not run."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    make("worker_a.py")
    [plugin] = plan(top, user="no-such-user").plugins
    assert plugin.refused is not None
    assert plugin.refused.startswith("there is no user 'no-such-user'")
    assert plugin.refused.endswith("; it must not run as root instead")


@pytest.mark.usefixtures("as_user")
@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"user": "root"}, "user: root' needs an engine that runs as root"),
        ({"group": 0}, "group: 0' needs an engine that runs as root"),
        ({"user": "no-such-user"}, "there is no user 'no-such-user'"),
        ({"group": "no-such-group"}, "there is no group 'no-such-group'"),
    ],
)
def test_an_engine_that_is_not_root_cannot_run_plugins_as_others(
    top: Path, make: Callable[..., Path], settings: dict[str, object], error: str
) -> None:
    """One error says so; the plugin runs as the engine's user."""
    make("worker_a.py")
    made = plan(top, **settings)
    [plugin] = made.plugins
    assert (plugin.refused, plugin.credentials) == (None, None)
    [problem] = [problem for problem in made.problems if problem.level == "error"]
    assert problem.text.startswith("Plugin 'worker_a': ")
    assert error in problem.text
    assert [p.level for p in check(top, **settings)["worker_a.py"].problems].count("error") == 1


def test_the_engine_s_own_user_needs_no_root(
    top: Path, make: Callable[..., Path], as_user: int
) -> None:
    """The configuration may be the same for engines of either kind."""
    make("worker_a.py")
    made = plan(top, user=as_user, group=as_user)
    assert made.plugins[0].credentials is None
    assert not [problem for problem in made.problems if problem.level == "error"]


def test_check_shows_the_user_of_a_plugin(
    top: Path, make: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And its group, in a note."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    make("worker_a.py")
    found = check(top, user=54_321, group=12_345)["worker_a.py"].problems
    assert "it runs as user '54321' (54321), group 12345" in [problem.text for problem in found]


def test_limits_name_the_setting_that_applies(top: Path, make: Callable[..., Path]) -> None:
    """A plugin's own one, or the general one."""
    make("worker_a.py", "worker_b.py")
    own = {"worker_a": {"memory_max": "32MiB"}, "worker_b": {"max_processes": 7}}
    a, b = plan(top, memory_max="64MiB", plugins=own).plugins
    prefix = "extra_config.runtime_plugins"
    assert a.memory_max == (32 << 20, f"{prefix}.plugins.worker_a.memory_max")
    assert b.memory_max == (64 << 20, f"{prefix}.memory_max")
    assert (a.max_processes, b.max_processes) == (
        None,
        (7, f"{prefix}.plugins.worker_b.max_processes"),
    )


def test_hidden_variables_are_never_those_of_the_contract(
    top: Path, make: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor those that the plugin's settings give it."""
    for name in ("MY_TOKEN", "my_token", "OTHER", "LMCACHE_RUNTIME_PLUGIN_TOKEN"):
        monkeypatch.setenv(name, "x")
    make("worker_a.py")
    [plugin] = plan(top, env_hide=["*TOKEN*"]).plugins
    assert b"MY_TOKEN" in plugin.hidden
    assert not {b"my_token", b"OTHER", b"LMCACHE_RUNTIME_PLUGIN_TOKEN"} & {*plugin.hidden}
    own = {"worker_a": {"env": {"MY_TOKEN": "own"}}}
    [plugin] = plan(top, env_hide=["*"], plugins=own).plugins
    assert b"OTHER" in plugin.hidden
    assert not {b"MY_TOKEN", b"PATH", b"LMCACHE_RUNTIME_PLUGIN_TOKEN"} & {*plugin.hidden}
