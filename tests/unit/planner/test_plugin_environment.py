# SPDX-License-Identifier: Apache-2.0
"""What a plugin finds in its environment, and the file with the whole configuration."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmcache_plugin_adapter.configuration.exec_limits import EXEC_STRING_LIMIT
from lmcache_plugin_adapter.configuration.variables_table import VARIABLES_SET
from lmcache_plugin_adapter.contract.frozen import replaced
from lmcache_plugin_adapter.contract.identity import ProcessIdentity, Role
from lmcache_plugin_adapter.contract.launch_spec import LaunchSpec
from lmcache_plugin_adapter.contract.variables import CONFIG, CONFIG_FILE, NAME, OLDER_NAMES
from lmcache_plugin_adapter.planner.plugin_environment import (
    config_text,
    plugin_environment,
    plugin_path,
    write_config_file,
)

if TYPE_CHECKING:
    from pathlib import Path

OWN, OLDER = "LMCACHE_RUNTIME_PLUGIN_", "LMCACHE_PLUGIN_"
WHOLE = {"chunk_size": 256, "runtime_plugin_locations": ["/p"], "extra_config": {"a": "b"}}
SPEC = LaunchSpec(
    identity=ProcessIdentity(Role.WORKER, 1, 2, dp_rank=3, dp_size=4),
    locations=["/p"],
    config_json=json.dumps(WHOLE, indent=2),
    engine_pid=4711,
    run_id="0123abcd",
    python="/venv/bin/python",
)


def with_config(config: object) -> LaunchSpec:
    """Return a launch spec with this configuration, laid out as LMCache does."""
    return replaced(SPEC, config_json=json.dumps(config, indent=2))


def test_a_plugin_is_told_everything() -> None:
    """Every row of the contract, save the plugin's own name."""
    environment, problems = plugin_environment(
        SPEC, {"PATH": "/bin", "HOME": "/h"}, "/run/c.json", "/run/ending"
    )
    assert problems == []
    assert environment == {
        f"{OWN}ROLE": "WORKER",
        f"{OWN}WORKER_ID": "1",
        f"{OWN}WORKER_COUNT": "2",
        f"{OWN}CONFIG": SPEC.config_json,
        f"{OWN}CONFIG_FILE": "/run/c.json",
        f"{OWN}ENDING_FILE": "/run/ending",
        f"{OWN}DP_RANK": "3",
        f"{OWN}DP_SIZE": "4",
        f"{OWN}ENGINE_PID": "4711",
        f"{OWN}RUN_ID": "0123abcd",
        f"{OLDER}ROLE": "WORKER",
        f"{OLDER}WORKER_ID": "1",
        f"{OLDER}WORKER_COUNT": "2",
        f"{OLDER}CONFIG": SPEC.config_json,
        "PYTHONUNBUFFERED": "1",
        "PATH": "/venv/bin:/bin",
        "PROMETHEUS_MULTIPROC_DIR": None,
        "prometheus_multiproc_dir": None,
        f"{OWN}PROMETHEUS_MULTIPROC_DIR": None,
        "NOTIFY_SOCKET": None,
        "WATCHDOG_USEC": None,
        "WATCHDOG_PID": None,
    }


def test_the_table_has_every_variable() -> None:
    """The reference page is written from it."""
    listed = {row.name for row in VARIABLES_SET} | set(OLDER_NAMES.values())
    environment, _ = plugin_environment(SPEC, {}, None)
    assert listed == (set(environment) | {NAME}) - {"prometheus_multiproc_dir"}


@pytest.mark.parametrize(
    ("identity", "role", "worker_id"),
    [
        (ProcessIdentity(Role.SCHEDULER, -1, 2), "SCHEDULER", "-1"),
        (ProcessIdentity(Role.WORKER, 0, 1), "WORKER", "0"),
        (ProcessIdentity(Role.SERVER, 0, 1), "SERVER", "0"),
        (ProcessIdentity(None, 0, 1), "", "0"),
    ],
)
def test_roles_are_upper_case(identity: ProcessIdentity, role: str, worker_id: str) -> None:
    """Empty without a role, as LMCache's multiprocess server has it."""
    environment, _ = plugin_environment(replaced(SPEC, identity=identity), {}, None)
    assert environment[f"{OWN}ROLE"] == environment[f"{OLDER}ROLE"] == role
    assert environment[f"{OWN}WORKER_ID"] == environment[f"{OLDER}WORKER_ID"] == worker_id


@pytest.mark.parametrize(
    ("environ", "handed_over"),
    [
        ({"PROMETHEUS_MULTIPROC_DIR": "/m"}, "/m"),
        ({"prometheus_multiproc_dir": "/m"}, "/m"),
        ({"PROMETHEUS_MULTIPROC_DIR": ""}, None),
        ({f"{OWN}PROMETHEUS_MULTIPROC_DIR": "/of an engine around this one"}, None),
    ],
)
def test_the_metrics_directory_is_handed_over(
    environ: dict[str, str], handed_over: str | None
) -> None:
    """A plugin's own metrics must not land in the engine's files."""
    environment, _ = plugin_environment(SPEC, environ, None)
    assert environment[f"{OWN}PROMETHEUS_MULTIPROC_DIR"] == handed_over
    assert environment["PROMETHEUS_MULTIPROC_DIR"] is None
    assert environment["prometheus_multiproc_dir"] is None


@pytest.mark.parametrize(
    ("python", "path", "result"),
    [
        ("/venv/bin/python", "/usr/bin:/bin", "/venv/bin:/usr/bin:/bin"),
        ("/usr/bin/python3", "/usr/bin:/bin", "/usr/bin:/bin"),
        ("/venv/bin/python", "/bin:/venv/bin", "/venv/bin:/bin:/venv/bin"),
        ("/venv/bin/python", "", f"/venv/bin:{os.defpath}"),
        ("/venv/bin/python", None, f"/venv/bin:{os.defpath}"),
        ("/odd:dir/python", "/bin", "/bin"),
        ("python", "/bin", "/bin"),
        ("", "/bin", "/bin"),
    ],
)
def test_the_engines_python_comes_first_in_path(python: str, path: str | None, result: str) -> None:
    """As if its environment were activated."""
    assert plugin_path(python, path) == result


@pytest.mark.parametrize("config", [{}, {"x": 1}, {"extra_config": {"a": 1}}])
def test_a_configuration_of_another_kind_gets_the_two_keys(config: dict[str, object]) -> None:
    """Plugins can rely on ``runtime_plugin_locations`` and ``extra_config``."""
    spec = with_config(config)
    environment, problems = plugin_environment(spec, {}, None)
    found = json.loads(environment[CONFIG] or "")
    assert problems == []
    assert found == {"runtime_plugin_locations": ["/p"], "extra_config": None, **config}
    assert config_text(spec) == environment[CONFIG]


def test_a_complete_configuration_is_handed_on_as_it_is() -> None:
    """Byte for byte, whatever its layout."""
    assert config_text(SPEC) == SPEC.config_json


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{bad", "Expecting property name"),
        ("[1]", "not a JSON object"),
        ("null", "not a JSON object"),
        ("[" * 100_000, "while decoding a JSON array"),
    ],
)
def test_a_broken_configuration_is_handed_on_and_said(text: str, reason: str) -> None:
    """The plugin may make something of it; nobody else can."""
    environment, problems = plugin_environment(replaced(SPEC, config_json=text), {}, None)
    assert environment[CONFIG] == text
    assert [problem.level for problem in problems] == ["warning"]
    assert reason in problems[0].text


@pytest.mark.parametrize("text", ["", " \n"])
def test_no_configuration_at_all_becomes_one_with_locations(text: str) -> None:
    """What the engine could not serialise is replaced by what is known."""
    environment, problems = plugin_environment(replaced(SPEC, config_json=text), {}, None)
    expected = {"runtime_plugin_locations": ["/p"], "extra_config": None}
    assert json.loads(environment[CONFIG] or "") == expected
    assert "it is empty" in problems[0].text


def test_a_configuration_that_only_fits_without_its_layout_is_whole() -> None:
    """Spaces are the first to go."""
    spec = with_config({**WHOLE, "extra_config": {"list": [1] * 30_000}})
    environment, problems = plugin_environment(spec, {}, "/run/c.json")
    assert json.loads(environment[CONFIG] or "") == json.loads(spec.config_json)
    assert problems == []


def test_a_configuration_over_the_limit_is_reduced_and_the_file_named() -> None:
    """Valid JSON with the two keys that plugins are after."""
    spec = with_config({**WHOLE, "chat_template": "x" * 2_000_000})
    environment, problems = plugin_environment(spec, {}, "/run/c.json")
    two = {"runtime_plugin_locations": ["/p"], "extra_config": {"a": "b"}}
    assert json.loads(environment[CONFIG] or "") == two
    assert environment[f"{OLDER}CONFIG"] == environment[CONFIG]
    assert [problem.level for problem in problems] == ["warning"]
    assert "'/run/c.json' has it all" in problems[0].text
    assert json.loads(config_text(spec))["chat_template"].startswith("xx")


def test_two_keys_over_the_limit_are_left_out() -> None:
    """Removed, so that none of an engine around this one shines through."""
    spec = with_config({"extra_config": {"secret": "s" * 200_000}})
    environment, problems = plugin_environment(spec, {CONFIG: "of another engine"}, None)
    assert environment[CONFIG] is None
    assert environment[f"{OLDER}CONFIG"] is None
    assert "is left out" in problems[0].text
    assert "sss" not in problems[0].text


def test_non_ascii_that_the_locale_cannot_encode_still_arrives() -> None:
    """JSON can say it in ASCII."""
    spec = replaced(
        SPEC, config_json='{"runtime_plugin_locations": ["\ud800"], "extra_config": {}}'
    )
    environment, problems = plugin_environment(spec, {}, None)
    assert (environment[CONFIG] or "").isascii()
    assert json.loads(environment[CONFIG] or "")["runtime_plugin_locations"] == ["\ud800"]
    assert problems == []


def test_what_the_kernel_would_refuse_is_left_out_and_said() -> None:
    """One bad value must not keep every plugin from starting."""
    environ = {"PATH": "/bin:" + "x" * (EXEC_STRING_LIMIT - 12), "PROMETHEUS_MULTIPROC_DIR": "\0"}
    environment, problems = plugin_environment(SPEC, environ, "/a\0b")
    assert environment["PATH"] == environ["PATH"]
    assert environment[CONFIG_FILE] is None
    assert environment[f"{OWN}PROMETHEUS_MULTIPROC_DIR"] is None
    assert [problem.level for problem in problems] == ["warning"] * 3
    assert all(problem.text.isprintable() for problem in problems)


def test_the_kernel_takes_the_longest_configuration() -> None:
    """The limit is the kernel's own: one byte more and nothing could be executed."""
    empty = json.dumps({**WHOLE, "x": ""})
    room = EXEC_STRING_LIMIT - len(f"{CONFIG}={empty}") - 1
    for more, whole in ((0, True), (1, False)):
        text = json.dumps({**WHOLE, "x": "x" * (room + more)})
        environment, problems = plugin_environment(replaced(SPEC, config_json=text), {}, "/c")
        variables = {name: value for name, value in environment.items() if value is not None}
        out = subprocess.run(
            [sys.executable, "-c", f"import os; print(os.environ[{CONFIG!r}])"],
            env=variables,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        assert json.loads(out)["extra_config"] == {"a": "b"}
        assert (out == f"{text}\n") is whole
        assert problems == []
    if os.sysconf("SC_PAGE_SIZE") == 4096:  # larger pages allow more
        too_long = {CONFIG: "x" * (EXEC_STRING_LIMIT - len(CONFIG) - 1)}
        with pytest.raises(OSError, match="too long"):
            subprocess.run(["true"], env=too_long, check=True)


JSON_TEXT = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
).map(json.dumps)


@given(
    config=st.text() | JSON_TEXT | st.integers(0, 300_000).map(lambda n: f'{{"x": "{"é" * n}"}}'),
    locations=st.none() | st.text() | st.lists(st.text() | st.integers()),
    path=st.none() | st.text(),
    metrics=st.text(),
    run_id=st.text(),
    python=st.text(),
    config_file=st.none() | st.text(),
)
def test_the_environment_can_always_be_handed_to_a_program(
    config: str,
    locations: object,
    path: str | None,
    metrics: str,
    run_id: str,
    python: str,
    config_file: str | None,
) -> None:
    """Nothing raises, and every value is one the kernel takes."""
    spec = replaced(SPEC, config_json=config, locations=locations, run_id=run_id, python=python)
    environ = {"PROMETHEUS_MULTIPROC_DIR": metrics} | ({} if path is None else {"PATH": path})
    environment, problems = plugin_environment(spec, environ, config_file)
    for name, value in environment.items():
        if value is None or (name == "PATH" and value == path):
            continue
        assert len(os.fsencode(f"{name}={value}")) < EXEC_STRING_LIMIT
        assert "\0" not in value
    assert all(problem.text.isprintable() for problem in problems)


def test_the_file_is_private_and_whole(tmp_path: Path) -> None:
    """Mode 0600 whatever the umask; an older one is replaced; nothing else is left behind."""
    target = tmp_path / "config.json"
    target.write_text("old")
    target.chmod(0o666)
    before = os.umask(0o277)
    try:
        written, problems = write_config_file(str(tmp_path), target.name, '{"a": "é"}')
    finally:
        os.umask(before)
    assert (written, problems) == (str(target), [])
    assert target.read_text() == '{"a": "é"}'
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == [target.name]


def test_the_file_can_be_written_by_a_directorys_descriptor(tmp_path: Path) -> None:
    """The directory may be renamed under it."""
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        assert write_config_file(fd, "c.json", "{}") == ("c.json", [])
    finally:
        os.close(fd)
    assert (tmp_path / "c.json").read_text() == "{}"


def test_a_link_in_the_files_place_is_replaced_not_followed(tmp_path: Path) -> None:
    """Nobody can have us write elsewhere."""
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    (tmp_path / "c.json").symlink_to(victim)
    assert write_config_file(str(tmp_path), "c.json", "{}")[1] == []
    assert victim.read_text() == "untouched"
    assert not (tmp_path / "c.json").is_symlink()


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    """Whoever has the old file open keeps it whole; the new one appears whole."""
    write_config_file(str(tmp_path), "c.json", "old")
    with (tmp_path / "c.json").open() as reader:
        write_config_file(str(tmp_path), "c.json", "new")
        assert reader.read() == "old"
    assert (tmp_path / "c.json").read_text() == "new"


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("no/c.json", "{}", "No such file or directory"),
        ("c\0.json", "{}", "null"),
        ("c" * 300, "{}", "File name too long"),
        ("c.json", "\ud800", "surrogates not allowed"),
    ],
)
def test_a_file_that_cannot_be_written_is_one_problem(
    tmp_path: Path, name: str, text: str, reason: str
) -> None:
    """Plugins run without it, and nothing is left behind."""
    written, problems = write_config_file(str(tmp_path), name, text)
    assert written is None
    assert [problem.level for problem in problems] == ["warning"]
    assert reason in problems[0].text
    assert CONFIG_FILE in problems[0].text
    assert os.listdir(tmp_path) == []


def test_a_full_disk_leaves_nothing_behind() -> None:
    """The half-written file is removed."""
    size = 64 * 1024
    probe = (
        "import os, resource, signal, sys;"
        "from lmcache_plugin_adapter.planner.plugin_environment import *;"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}));"
        "import tempfile; d = tempfile.mkdtemp();"
        f"path, problems = write_config_file(d, 'c.json', 'x' * {2 * size});"
        "print(path, len(problems), os.listdir(d)); os.rmdir(d)"
    )
    out = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert out.stdout == "None 1 []\n"
