# SPDX-License-Identifier: Apache-2.0
"""The file-name grammar: every row of the contract's table, and what holds for any text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmcache_plugin_adapter.contract.identity import ProcessIdentity, Role
from lmcache_plugin_adapter.planner.file_names import (
    ROLE_WORDS,
    NotAPlugin,
    PluginName,
    id_note,
    name_warning,
    parse_name,
    runs_on,
)

SCHEDULER = ProcessIdentity(Role.SCHEDULER, -1, 3)
WORKERS = tuple(ProcessIdentity(Role.WORKER, rank, 3) for rank in range(3))
SERVER = ProcessIdentity(Role.SERVER, 0, 1)
UNFILTERED = ProcessIdentity(None, 0, 1)
FLEET = (SCHEDULER, *WORKERS, SERVER)


def where(file_name: str) -> set[str]:
    """Name the processes of the fleet that a file runs on."""
    name = parse_name(file_name)
    if isinstance(name, NotAPlugin):
        return set()
    return {identity.label for identity in FLEET if runs_on(name, identity)}


EVERY_WORKER = {"worker 0", "worker 1", "worker 2"}


@pytest.mark.parametrize(
    ("file_name", "runs"),
    [
        ("scheduler_foo_plugin.py", {"scheduler"}),
        ("scheduler.py", {"scheduler"}),
        ("worker_0_test.sh", {"worker 0"}),
        ("worker_0.sh", {"worker 0"}),
        ("WORKER_0_x", {"worker 0"}),
        ("worker_gpu_stats.py", EVERY_WORKER),
        ("worker.py", EVERY_WORKER),
        ("all_plugin.sh", {"scheduler", "server", *EVERY_WORKER}),
        ("all.sh", {"scheduler", "server", *EVERY_WORKER}),
        ("all_0_x.sh", {"worker 0"}),
        ("worker_00_x.sh", {"worker 0"}),
        ("worker_002.pl", {"worker 2"}),
        ("worker_7_x.sh", set()),
        ("utils.py", set()),
        ("__init__.py", set()),
        ("foo_plugin.py", set()),
        ("woker_x.py", set()),
        ("server_metrics.py", {"server"}),
        ("server_0_foo.py", {"server"}),
        ("server.py", {"server"}),
        ("Scheduler_0_x.py", set()),
        ("scheduler_0.py", set()),
        ("All", {"scheduler", "server", *EVERY_WORKER}),
        ("worker", EVERY_WORKER),
        ("worker_-1_x.py", EVERY_WORKER),
        ("worker_²_x.py", EVERY_WORKER),
        ("worker_0x_y.py", EVERY_WORKER),
        ("worker__0_x.py", EVERY_WORKER),
        ("worker_99999999999999999999999999999999.py", set()),
        ("worker_00000000000000000000000000000001.py", {"worker 1"}),
    ],
)
def test_a_file_runs_where_its_name_says(file_name: str, runs: set[str]) -> None:
    """Each row of the contract's naming table, and its edges."""
    assert where(file_name) == runs


@pytest.mark.parametrize("file_name", ["worker_5_x.py", "scheduler_0_x.py", "server.py", "all.py"])
def test_without_a_role_nothing_is_filtered(file_name: str) -> None:
    """LMCache's multiprocess server has no role and runs every plugin."""
    name = parse_name(file_name)
    assert isinstance(name, PluginName)
    assert runs_on(name, UNFILTERED)


@pytest.mark.parametrize(
    ("file_name", "parts"),
    [
        ("worker_0_gpu_stats.tar.py", ("worker_0_gpu_stats.tar", "worker", 0, "gpu_stats.tar")),
        ("ALL_Plugin.SH", ("ALL_Plugin", "all", None, "Plugin")),
        ("scheduler", ("scheduler", "scheduler", None, "")),
        ("server_3", ("server_3", "server", 3, "")),
    ],
)
def test_a_name_is_taken_apart(file_name: str, parts: tuple[str, str, int | None, str]) -> None:
    """The stem keeps its case, the role does not; only the last extension goes."""
    name = parse_name(file_name)
    assert isinstance(name, PluginName)
    assert (name.stem, name.role, name.worker_id, name.description) == parts


@pytest.mark.parametrize(
    ("file_name", "kind"),
    [
        (".worker.py", "hidden"),
        (".worker.py.swp", "hidden"),
        ("..data", "hidden"),
        ("_worker.py", "private"),
        ("__init__.py", "private"),
        ("worker.py~", "leftover"),
        ("worker.py.~1~", "leftover"),
        ("worker.swp", "leftover"),
        ("worker.py.BAK", "leftover"),
        ("worker.sh.orig", "leftover"),
        ("worker.cpython-311.pyc", "leftover"),
        ("#worker.py#", "leftover"),
        ("worker.md", "data"),
        ("worker.txt", "data"),
        ("all.json", "data"),
        ("scheduler.yaml", "data"),
        ("scheduler.YML", "data"),
        ("scheduler.toml", "data"),
        ("server.crt", "data"),
        ("woker.py", "near-miss"),
        ("utils.py", "no-role"),
        ("Makefile", "no-role"),
        ("foo_worker_0.py", "no-role"),
        ("allocator_stats.py", "no-role"),
    ],
)
def test_what_is_not_a_plugin_says_which_kind_it_is(file_name: str, kind: str) -> None:
    """Hidden and private files, leftovers, data, and names without a role."""
    name = parse_name(file_name)
    assert isinstance(name, NotAPlugin)
    assert name.kind == kind


def test_an_exec_bit_makes_a_program_of_data_but_not_of_a_leftover() -> None:
    """Somebody who makes ``all.conf`` executable means it; a backup only inherited the bit."""
    assert isinstance(parse_name("all.conf", executable=True), PluginName)
    assert isinstance(parse_name("all.py.bak", executable=True), NotAPlugin)


def test_leading_dots_do_not_count_on_a_file_that_is_a_location() -> None:
    """Somebody named the file, so the rules about hidden names do not apply to it."""
    assert isinstance(parse_name(".worker_0.py", is_location=True), PluginName)
    assert isinstance(parse_name("_worker_0.py", is_location=True), PluginName)
    assert isinstance(parse_name(".worker_0.py"), NotAPlugin)
    utils = parse_name("_utils.py", is_location=True)
    assert isinstance(utils, NotAPlugin)
    assert utils.kind != "hidden"


@pytest.mark.parametrize(
    ("file_name", "suggestion"),
    [
        ("woker_x.py", "worker_x.py"),
        ("wroker_0_x.sh", "worker_0_x.sh"),
        ("workers.py", "worker.py"),
        ("worker-0.py", "worker_0.py"),
        ("worker0_stats.py", "worker_0_stats.py"),
        ("woker-0.py", "worker_0.py"),
        ("scheduler1.py", "scheduler.py"),
        ("worker.v2.py", "worker_v2.py"),
        ("all-plugin.sh", "all_plugin.sh"),
        ("worker-0-q.sh", "worker_0_q.sh"),
        ("worker.0.q.sh", "worker_0_q.sh"),
        ("worker0-gpu-stats.py", "worker_0_gpu_stats.py"),
        ("worker 1 + q.sh", "worker_1_q.sh"),
        ("worker-1-q_x.sh", "worker_1_q_x.sh"),
        ("woker_0-q.sh", "worker_0_q.sh"),
        ("scheduler-0-q.py", "scheduler_q.py"),
        ("server-1.py", "server.py"),
        ("shceduler_x", "scheduler_x"),
        ("schedulr_v2_probe.py", "scheduler_v2_probe.py"),
        ("scheduler-log2.py", "scheduler_log2.py"),
        ("heartbeat.py", "all_heartbeat.py"),
        ("heart_beat.py", "all_heart_beat.py"),
    ],
)
def test_a_better_name_is_suggested(file_name: str, suggestion: str) -> None:
    """The suggestion is a name that runs."""
    name = parse_name(file_name)
    assert isinstance(name, NotAPlugin)
    assert name.suggestion == suggestion
    assert isinstance(parse_name(suggestion), PluginName)


@pytest.mark.parametrize(
    ("file_name", "suggestion"),
    [
        ("worker_0-q.sh", "worker_0_q.sh"),
        ("worker_12.x.py", "worker_12_x.py"),
        ("all_0-gpu-stats.py", "all_0_gpu_stats.py"),
        ("worker_0_q.sh", None),
        ("worker_q-0.sh", None),
        ("worker_4k.sh", None),
        ("worker.py", None),
    ],
)
def test_a_number_that_is_no_id_has_a_note(file_name: str, suggestion: str | None) -> None:
    """The file runs on every worker, as with LMCache."""
    name = parse_name(file_name)
    assert isinstance(name, PluginName)
    note = id_note(name)
    assert (note is None) if suggestion is None else (f"name it '{suggestion}'" in str(note))


@pytest.mark.parametrize(
    ("file_name", "runs"),
    [
        ("heartbeat.py", True),
        ("heartbeat.sh", True),
        ("workers.py", True),
        ("heartbeat.PY", False),
        ("heartbeat.pl", False),
        ("heart_beat.py", False),
        ("woker_x.py", False),
        ("__init__.py", False),
    ],
)
def test_files_that_lmcache_would_run_are_known(file_name: str, runs: bool) -> None:
    """One word ending in .py or .sh escapes the filter of LMCache's own launcher."""
    name = parse_name(file_name)
    assert isinstance(name, NotAPlugin)
    assert name.runs_in_lmcache is runs


@pytest.mark.parametrize(
    ("file_name", "words"),
    [
        ("scheduler_0_x.py", "name it 'scheduler_x.py'"),
        ("scheduler_2.py", "name it 'scheduler.py'"),
        ("worker_3_x.py", "ids go from 0 to 2"),
        ("all_3.py", "ids go from 0 to 2"),
    ],
)
def test_an_id_that_no_process_has_is_warned_about(file_name: str, words: str) -> None:
    """An id on a scheduler's file, and an id past the last worker."""
    name = parse_name(file_name)
    assert isinstance(name, PluginName)
    warning = name_warning(name, FLEET)
    assert warning is not None
    assert words in warning


@pytest.mark.parametrize("file_name", ["worker_2_x.py", "all_0.py", "scheduler.py", "server_0.py"])
def test_an_id_that_exists_is_not_warned_about(file_name: str) -> None:
    """No false alarm."""
    name = parse_name(file_name)
    assert isinstance(name, PluginName)
    assert name_warning(name, FLEET) is None


FILE_NAMES = st.one_of(
    st.text(),
    st.from_regex(r"[a-zA-Z]{0,9}([-_.]?[0-9]{0,30}[-_.]?[a-z]{0,4}){0,3}", fullmatch=True),
    st.binary(max_size=60).map(lambda raw: raw.decode("utf-8", "surrogateescape")),
)


@given(FILE_NAMES, st.booleans(), st.booleans())
def test_any_text_is_read_without_an_error(text: str, executable: bool, is_location: bool) -> None:
    """Parsing never raises, and what it says can be printed on one line."""
    name = parse_name(text, executable=executable, is_location=is_location)
    if isinstance(name, PluginName):
        assert name.role in ROLE_WORDS
        for identity in FLEET:
            runs_on(name, identity)
        warning = name_warning(name, FLEET)
        assert warning is None or warning.isprintable()
    else:
        assert name.reason.isprintable()


@given(
    st.sampled_from(["scheduler", "worker", "all", "server", "Worker", "ALL"]),
    st.none() | st.integers(0, 99),
    st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True) | st.just(""),
    st.sampled_from(["", ".py", ".sh", ".pl", ".x"]),
    st.integers(0, 3),
)
def test_what_is_written_by_the_grammar_is_read_back(
    role: str, worker_id: int | None, description: str, extension: str, zeros: int
) -> None:
    """Role, id (however many zeros lead it) and description come back."""
    words = [role]
    if worker_id is not None:
        words.append("0" * zeros + str(worker_id))
    if description:
        words.append(description)
    name = parse_name("_".join(words) + extension)
    assert isinstance(name, PluginName)
    assert name.role == role.lower()
    assert name.worker_id == worker_id
    assert name.description == description


@given(st.sampled_from(["worker", "all"]), st.integers(0, 40), st.integers(1, 20))
def test_an_id_runs_on_one_worker_or_is_warned_about(role: str, worker: int, count: int) -> None:
    """A file with an id runs on exactly one process of a fleet, or on none and says so."""
    fleet = [ProcessIdentity(Role.SCHEDULER, -1, count)]
    fleet += [ProcessIdentity(Role.WORKER, rank, count) for rank in range(count)]
    name = parse_name(f"{role}_{worker}_x.py")
    assert isinstance(name, PluginName)
    matches = sum(runs_on(name, identity) for identity in fleet)
    assert matches == (1 if name_warning(name, fleet) is None else 0)
