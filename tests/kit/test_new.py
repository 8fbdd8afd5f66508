# SPDX-License-Identifier: Apache-2.0
"""``lmcache-plugins new``: what it writes works, as it is, by the commands that it prints."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from cli_under_test import Running

from lmcache_plugin_adapter.planner.file_names import PluginName, parse_name

pytestmark = pytest.mark.timeout(400)  # each command is a process, mypy among them

ROOT = Path(__file__).parents[2]


def run(
    *words: str, cwd: Path, module: str = "lmcache_plugin_adapter"
) -> subprocess.CompletedProcess[str]:
    """Run a command in a directory, as somebody does who has this package installed."""
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("LMCACHE_", "PYTEST_"))}
    environ["LMCACHE_PLUGINS_RUNTIME_DIR"] = str(cwd / "run")
    environ["PYTHONPATH"] = str(ROOT)
    return subprocess.run(
        [sys.executable, "-m", module, *words],
        cwd=cwd,
        env=environ,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def new(cwd: Path, *words: str) -> list[str]:
    """Write a plugin; return the commands that are to be run next."""
    result = run("new", *words, cwd=cwd)
    assert (result.returncode, result.stderr) == (0, "")
    return [line.strip() for line in result.stdout.partition("Next:\n")[2].splitlines()]


NAMES = [
    (("--role", "scheduler"), "scheduler_queue_watch.py"),
    (("--role", "worker"), "worker_queue_watch.py"),
    (("--role", "worker", "--worker-id", "2"), "worker_2_queue_watch.py"),
    (("--role", "all"), "all_queue_watch.py"),
    (("--role", "server"), "server_queue_watch.py"),
    (("--role", "Scheduler", "--lang", "bash"), "scheduler_queue_watch.sh"),
]


@pytest.mark.parametrize(("options", "file"), NAMES, ids=[file for _, file in NAMES])
def test_the_file_is_named_by_the_contract_and_can_be_run(
    options: tuple[str, ...], file: str, tmp_path: Path
) -> None:
    """``check`` finds nothing to warn of, with the command that is printed."""
    commands = new(tmp_path, "queue-watch", "--directory", "p", *options)
    plugin = tmp_path / "p" / file
    stem = plugin.stem
    assert os.access(plugin, os.X_OK)
    assert isinstance(parse_name(file), PluginName)
    test = tmp_path / "p" / "_tests" / f"test_{stem}.py"
    compile(test.read_text(), test, "exec")
    config = yaml.safe_load((tmp_path / "p" / "lmcache.yaml").read_text())
    assert config["runtime_plugin_locations"] == [str(tmp_path / "p")]
    assert stem in config["extra_config"]["runtime_plugins"]["plugins"]
    program, *check = shlex.split(commands[0])
    assert (program, check[:3]) == ("lmcache-plugins", ["check", "-c", "p/lmcache.yaml"])
    result = run(*check, "--json", cwd=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    assert stem in json.dumps(json.loads(result.stdout))


@pytest.mark.parametrize(
    ("language", "role"),
    [("python", "worker --worker-id 1"), ("bash", "all"), ("python", "server")],
)
def test_the_plugin_and_its_test_work(language: str, role: str, tmp_path: Path) -> None:
    """Checked, run and tested by the commands that are printed."""
    words = f"queue_watch --role {role} --lang {language}".split()
    check, started, test = new(tmp_path, *words)
    assert run(*shlex.split(check)[1:], cwd=tmp_path).returncode == 0
    with Running(tmp_path, *shlex.split(started)[2:], cwd=tmp_path) as running:
        running.until_logged("Watching")
        running.until_logged("threads")
        assert running.stop() == 0
        assert "Goodbye" in running.log
    result = run(*shlex.split(test)[1:], "-q", cwd=tmp_path, module="pytest")
    assert result.returncode == 0, result.stdout
    assert f"{3 if language == 'python' else 2} passed" in result.stdout


def test_what_is_written_is_clean(tmp_path: Path) -> None:
    """For this package's own rules, and for strict types."""
    new(tmp_path, "a", "--role", "worker")
    new(tmp_path, "b", "--role", "all", "--lang", "bash")
    files = [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.py")]
    assert len(files) == 3
    assert subprocess.run(["bash", "-n", tmp_path / "all_b.sh"], check=False).returncode == 0
    for words in (
        ("ruff", "check", "--config", str(ROOT / "pyproject.toml"), "--ignore", "S101,INP001"),
        ("ruff", "format", "--check", "--config", str(ROOT / "pyproject.toml")),
        ("mypy", "--strict", "--config-file", os.devnull),
    ):
        result = run(*words[1:], *files, cwd=tmp_path, module=words[0])
        assert result.returncode == 0, result.stdout + result.stderr


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    """Neither plugin nor test; a configuration with the directory is used as it is."""
    words = ("x", "--role", "worker")
    new(tmp_path, *words)
    plugin, test = tmp_path / "worker_x.py", tmp_path / "_tests" / "test_worker_x.py"
    plugin.write_text("mine")
    test.unlink()
    result = run("new", *words, cwd=tmp_path)
    assert result.returncode == 2
    assert result.stderr == "error: 'worker_x.py' is there already: nothing was written\n"
    assert plugin.read_text() == "mine"
    assert not test.exists()

    (check, started, _) = new(tmp_path, "y", "--role", "all")
    assert "-c lmcache.yaml" in check
    assert "-c lmcache.yaml" in started


@pytest.mark.parametrize(
    "existing",
    [
        "runtime_plugin_locations: []\n",
        "runtime_plugin_locations: [@/worker_a.sh]\n",
        "# not @\nruntime_plugin_locations: [@-more]\n",
        "not: [yaml\n",
    ],
)
def test_the_commands_run_the_new_plugin(existing: str, tmp_path: Path) -> None:
    """A configuration for other plugins stays as it is; the new plugin gets its own."""
    (tmp_path / "lmcache.yaml").write_text(existing.replace("@", str(tmp_path)))
    (tmp_path / "worker_a.sh").write_text("echo a\n")
    check, started, _ = new(tmp_path, "z", "--role", "all")
    assert "-c all_z.yaml" in started
    assert (tmp_path / "lmcache.yaml").read_text() == existing.replace("@", str(tmp_path))
    result = run(*shlex.split(check)[1:], "--json", cwd=tmp_path)
    names = [file["name"] for file in json.loads(result.stdout)["files"] if file["command"]]
    assert "all_z" in names
    result = run("new", "z", "--role", "all", "--lang", "bash", cwd=tmp_path)
    assert result.returncode == 2


def test_without_msgspec_it_exits_with_one_line(tmp_path: Path) -> None:
    """The line names what to install; the code says that a restart does not help."""
    new(tmp_path, "x", "--role", "worker")
    hide = "import runpy, sys; sys.modules['msgspec'] = None; runpy.run_path(sys.argv[1], None, "
    result = subprocess.run(
        [sys.executable, "-c", f"{hide}'__main__')", tmp_path / "worker_x.py"],
        env={"LMCACHE_RUNTIME_PLUGIN_ROLE": "WORKER", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (result.returncode, result.stderr) == (125, "")
    assert result.stdout == (
        f"<3>Cannot run the plugin: it needs 'msgspec': {sys.executable} -m pip install "
        "'lmcache-plugin-adapter[kit]'\n"
    )


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("0_x", "--role", "worker"), "begins with a letter"),
        (("a/b", "--role", "worker"), "a name is letters"),
        (("", "--role", "worker"), "a name is letters"),
        (("x", "--role", "all", "--worker-id", "0"), "--worker-id is for --role worker"),
        (("x", "--role", "worker", "--directory", "/proc/none"), "cannot write"),
    ],
)
def test_what_cannot_be_is_refused(words: tuple[str, ...], reason: str, tmp_path: Path) -> None:
    """In one line, and nothing is written."""
    result = run("new", *words, cwd=tmp_path)
    assert result.returncode == 2
    assert reason in result.stderr
    assert result.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_role_in_the_name_is_not_said_twice(tmp_path: Path) -> None:
    """Whoever types the whole name means the same."""
    new(tmp_path, "worker_x", "--role", "worker")
    new(tmp_path, "worker_3_x", "--role", "worker", "--worker-id", "3")
    assert {path.name for path in tmp_path.glob("*.py")} == {"worker_x.py", "worker_3_x.py"}


def test_what_cannot_be_written_whole_is_not_written(tmp_path: Path) -> None:
    """The tests' directory is a file: the plugin does not stay behind."""
    (tmp_path / "_tests").write_text("")
    result = run("new", "x", "--role", "worker", cwd=tmp_path)
    assert result.returncode == 2
    assert "cannot write" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["_tests"]
