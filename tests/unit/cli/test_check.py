# SPDX-License-Identifier: Apache-2.0
"""``lmcache-plugins check``, as a real process on real directories."""

from __future__ import annotations

import base64
import json
import os
import re
import time
from typing import TYPE_CHECKING, Any

import pytest
from cli_under_test import ROOT, command, state_of, until

from lmcache_plugin_adapter.cli.check.report import EngineSize
from lmcache_plugin_adapter.cli.check.table import MAX_NOTES, describe_processes
from lmcache_plugin_adapter.cli.hung_paths import patiently
from lmcache_plugin_adapter.cli.inputs import engine_processes
from lmcache_plugin_adapter.configuration.settings import read_settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from lmcache_plugin_adapter.contract.identity import ProcessIdentity

ODD_NAME = b"worker_\xff\n\x1b[31m'.sh"
NO_INTERPRETER = "#!/nowhere/ruby\n"


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    """An engine's working directory with an empty directory of plugins and its configuration."""
    (tmp_path / "plugins").mkdir()
    configure(tmp_path)
    return tmp_path


def configure(directory: Path, locations: object = "plugins", **settings: object) -> None:
    """Write the configuration; JSON is YAML."""
    content = {
        "runtime_plugin_locations": locations,
        "extra_config": {"runtime_plugins": settings},
    }
    (directory / "lmcache.yaml").write_text(json.dumps(content))


def plugin(engine: Path, name: str | bytes, text: str = "true\n", mode: int = 0o644) -> None:
    """Write one plugin."""
    path = os.path.join(os.fsencode(engine), b"plugins", os.fsencode(name))
    with open(path, "wb") as file:
        file.write(text.encode())
    os.chmod(path, mode)


def check(engine: Path, *options: str, status: int = 0) -> str:
    """Run the command in the engine's directory; return what it prints."""
    result = command("check", "-c", "lmcache.yaml", *options, cwd=engine)
    assert result.returncode == status, result.stdout + result.stderr
    assert result.stderr == ""
    return result.stdout


def report(engine: Path, *options: str, status: int = 0) -> dict[str, Any]:
    """Return the document for machines."""
    document: dict[str, Any] = json.loads(check(engine, "--json", *options, status=status))
    return document


def test_the_examples_are_in_order() -> None:
    """What README shows: each file with its processes and its command, nothing to complain of."""
    result = command("check", "-c", "configs/lmcache.yaml", "--tp", "2", "--strict")
    assert result.returncode == 0
    for line in (
        r"all_plugin\.sh +scheduler, workers 0-1 +/\S*/sh examples/all_plugin\.sh",
        r"scheduler_foo_plugin\.py +scheduler +/\S*python3 examples/scheduler_foo_plugin\.py",
        r"worker_0_test\.sh +worker 0 +/\S*bash examples/worker_0_test\.sh",
        r"worker_uptime\.pl +workers 0-1 +/\S*perl examples/worker_uptime\.pl --interval 2 ",
    ):
        assert re.search(f"^{line}", result.stdout, re.MULTILINE)
    assert "4 plugins, 0 errors, 0 warnings, 0 notes" in result.stdout


# Name, text, mode, then the level and the words that must be said of it.
MISTAKES = [
    ("utils.py", "x", 0o644, "note", "no role"),
    ("README.md", "x", 0o644, "note", "documentation"),
    (".hidden.py", "x", 0o644, "note", "starts with '.'"),
    ("all_x.py~", "x", 0o644, "note", "leftover"),
    ("server_x.py", "x", 0o644, "note", "server"),
    ("woker_x.py", "x", 0o644, "warning", "'worker_x.py'"),
    ("worker_9_x.sh", "x", 0o644, "warning", "ids go from 0 to 1"),
    ("scheduler_1.py", "x", 0o644, "warning", "'scheduler.py'"),
    ("worker_fallback.sh", NO_INTERPRETER, 0o644, "warning", "'/nowhere/ruby'"),
    ("worker_other.py", "#!/usr/bin/python3\n", 0o644, "warning", "python"),
    ("worker_no_interpreter.rb", NO_INTERPRETER, 0o755, "error", "'/nowhere/ruby'"),
    ("worker_no_exec_bit.bin", "x", 0o644, "error", "chmod +x"),
    ("worker_no_exec_bit", "\x7fELF", 0o644, "error", "chmod +x"),
    ("worker_empty.py", "", 0o644, "error", "empty"),
    ("worker_for_everyone.sh", "true\n", 0o666, "error", "chmod go-w"),
]


@pytest.mark.parametrize(
    ("name", "text", "mode", "level", "said"), MISTAKES, ids=[case[0] for case in MISTAKES]
)
def test_a_mistake_is_said_at_its_level(
    engine: Path, name: str, text: str, mode: int, level: str, said: str
) -> None:
    """One line that names the file; the others run. An error makes the exit status 1."""
    plugin(engine, "all_good.sh")
    plugin(engine, name, text, mode)
    output = check(engine, "--tp", "2", status=int(level == "error"))
    (line,) = [line for line in output.splitlines() if line.startswith(("error", "warn", "note"))]
    assert line.startswith(f"{level:<7} 'plugins/{name}': ")
    assert said in line
    assert re.search(r"^all_good\.sh +scheduler, workers 0-1", output, re.MULTILINE)


def test_strict_takes_warnings_for_errors(engine: Path) -> None:
    """And leaves notes alone."""
    plugin(engine, "all_good.sh")
    plugin(engine, "utils.py")
    check(engine, "--strict")
    plugin(engine, "woker_x.py")
    check(engine)
    check(engine, "--strict", status=1)


def test_log_directories_that_cannot_be_written(engine: Path) -> None:
    """The general one and those of single plugins; what the supervisor creates is no mistake."""
    (engine / "file").write_text("")
    plugin(engine, "all_x.sh")
    good = {"directory": str(engine / "logs" / "new")}
    bad = {"directory": str(engine / "file" / "logs")}
    configure(engine, log=good)
    assert "0 warnings" in check(engine, "--strict")
    text = f"Cannot write log files to '{engine}/file/logs': '{engine}/file' is no directory"
    configure(engine, log=bad)
    assert text in check(engine, "--strict", status=1)
    configure(engine, log=good, plugins={"all_x": {"log": bad}})
    assert text in check(engine, "--strict", status=1)
    assert not (engine / "logs").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_log_directory_of_somebody_else(engine: Path) -> None:
    """Permissions count, too."""
    (engine / "closed").mkdir(mode=0o500)
    configure(engine, log={"directory": str(engine / "closed")})
    assert "is not writable for user" in check(engine, "--strict", status=1)


def test_advice_for_a_server(engine: Path) -> None:
    """It names no role that the server does not have."""
    for name in ("scheduler_0_x.sh", "worker_9_x.sh", "server_2_x.sh"):
        plugin(engine, name)
    problems = {
        os.path.basename(file["path"]): file["problems"][0]
        for file in report(engine, "--server")["files"]
    }
    assert problems["server_2_x.sh"]["level"] == "warning"
    assert "name it 'server_x.sh'" in problems["server_2_x.sh"]["text"]
    for name in ("scheduler_0_x.sh", "worker_9_x.sh"):
        assert problems[name]["level"] == "note"
        assert "is not among these processes" in problems[name]["text"]


@pytest.mark.parametrize("key", ["runtime_plugin", "runtime-plugins", "Runtime_Plugins"])
def test_a_section_with_a_typing_error(engine: Path, key: str) -> None:
    """Its settings have no effect, which is easily overlooked."""
    content = {"runtime_plugin_locations": ["plugins"], "extra_config": {key: {"enabled": False}}}
    (engine / "lmcache.yaml").write_text(json.dumps(content))
    text = f"Unknown setting 'extra_config.{key}' has no effect: did you mean 'runtime_plugins'?"
    assert text in check(engine, "--strict", status=1)


def test_a_directory_of_every_mistake(engine: Path) -> None:
    """All at once: one line each, and the good plugin runs."""
    for name, text, mode, *_ in MISTAKES:
        plugin(engine, name, text, mode)
    plugin(engine, "all_good.sh")
    plugin(engine, ODD_NAME)
    plugin(engine, "worker_crlf.sh", "#!/bin/sh\r\ntrue\r\n")
    plugin(engine, "worker_off.sh")
    os.mkfifo(engine / "plugins" / "worker_fifo.sh")
    (engine / "plugins" / "worker_broken.sh").symlink_to("/nowhere")
    (engine / "plugins" / "all_link.sh").symlink_to("all_good.sh")
    os.mkfifo(engine / "fifo")
    locations = ["plugins", "plugins/all_good.sh", "missing", "fifo"]
    configure(engine, locations, stop_grace="soon", plugins={"worker_off": {"enabled": False}})
    document = report(engine, "--tp", "2", status=1)
    levels = {
        file["path"].rpartition("/")[2]: [problem["level"] for problem in file["problems"]]
        for file in document["files"]
    }
    expected = {name: [level] for name, _, _, level, _ in MISTAKES} | {
        "all_good.sh": [],
        "all_link.sh": ["note"],
        "worker_\\xff\n\x1b[31m'.sh": [],
        "worker_crlf.sh": ["warning"],
        "worker_off.sh": ["note"],
        "worker_fifo.sh": ["note"],
        "worker_broken.sh": ["error"],
    }
    assert levels == expected
    texts = [problem["text"] for problem in document["problems"]]
    assert len(texts) == 3
    for text, word in zip(texts, ("stop_grace", "'missing'", "'fifo'"), strict=True):
        assert word in text
    errors = sum(found == ["error"] for found in expected.values()) + 1
    assert document["summary"]["errors"] == errors
    assert document["exit_status"] == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_plugin_is_an_error(engine: Path) -> None:
    """It is selected and cannot run."""
    plugin(engine, "worker_secret.py", "x", 0o000)
    assert "cannot be read" in check(engine, status=1)


def test_names_of_any_bytes_are_shown_on_one_line_and_exact_for_machines(engine: Path) -> None:
    """Neither a terminal nor a JSON reader chokes on them."""
    plugin(engine, ODD_NAME)
    output = check(engine)
    assert "worker_\\xff\\n\\x1b[31m'.sh" in output
    assert "\x1b" not in output
    (file,) = report(engine)["files"]
    assert (
        base64.b64decode(file["path_base64"]) == os.fsencode(engine / "plugins") + b"/" + ODD_NAME
    )


def test_json_is_as_documented(engine: Path) -> None:
    """The keys that ``docs/reference/json-documents.md`` shows, with their types."""
    plugin(engine, "worker_x.py", "#!/usr/bin/env python3\n")
    plugin(engine, "utils.py")
    configure(engine, "plugins", plugins={"worker_x": {"args": ["--fast"]}})
    document = report(engine, "--tp", "2", "--pp", "2", "--dp", "3")
    page = (ROOT / "docs" / "reference" / "json-documents.md").read_text()
    shown = json.loads(page.split("```json\n")[1].split("```")[0])
    assert skeleton(document) == skeleton(shown)
    runs, helper = document["files"][1], document["files"][0]
    assert document["engine"] == {"workers": 4, "dp_size": 3}
    assert runs["runs_on"] == [
        {"role": "worker", "worker_id": rank, "dp_rank": 0} for rank in range(4)
    ]
    program, *arguments = runs["command"]
    assert os.access(program, os.X_OK)
    assert arguments == [str(engine / "plugins" / "worker_x.py"), "--fast"]
    assert helper["status"] == "no-role"
    assert helper["command"] is None


def skeleton(value: object) -> object:
    """Return a document's keys and types without its values."""
    if isinstance(value, dict):
        return {key: skeleton(item) for key, item in value.items()}
    if isinstance(value, list):
        return [skeleton(value[0])] if value else []
    return type(value).__name__


@pytest.mark.parametrize(
    ("settings", "words"),
    [({}, "dp 0: workers 0-1"), ({"data_parallel": "all"}, "dp 0-2: workers 0-1")],
)
def test_data_parallel_replicas(engine: Path, settings: dict[str, object], words: str) -> None:
    """The first of a node, or all."""
    plugin(engine, "worker_x.sh")
    configure(engine, "plugins", **settings)
    assert words in check(engine, "--tp", "2", "--dp", "3")


def test_which_processes_in_words() -> None:
    """Ranks in ranges, replicas that are alike once."""
    everyone = engine_processes(4)
    assert describe_processes(everyone) == "scheduler, workers 0-3"
    assert describe_processes(everyone[1:2]) == "worker 0"
    assert describe_processes([everyone[1], everyone[3], everyone[4]]) == "workers 0, 2-3"
    replicas = [engine_processes(1, rank, 3) for rank in range(3)]
    assert (
        describe_processes([one for replica in replicas for one in replica])
        == "dp 0-2: scheduler, worker 0"
    )
    uneven: list[ProcessIdentity] = [*replicas[0], replicas[1][0], *replicas[2]]
    assert describe_processes(uneven) == "dp 0, 2: scheduler, worker 0; dp 1: scheduler"


def test_at_80_columns_nothing_is_wider(engine: Path) -> None:
    """And nothing is cut off either."""
    plugin(engine, f"worker_{'x' * 100}.sh")
    plugin(engine, f"woker_{'y' * 100}.sh")
    result = command(
        "check", "-c", "lmcache.yaml", cwd=engine, env={"COLUMNS": "80", "TERM": "xterm"}
    )
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert re.sub(r"\s", "", result.stdout).count("x" * 20) >= 2 * 2
    assert "y" * 100 in re.sub(r"\s", "", result.stdout)


def test_an_encoding_without_the_letters_is_no_trouble(engine: Path) -> None:
    """Names are shown as well as the terminal can."""
    plugin(engine, "worker_ß.sh")
    result = command("check", "-c", "lmcache.yaml", cwd=engine, env={"PYTHONIOENCODING": "ascii"})
    assert result.returncode == 0
    assert "worker_\\xdf.sh" in result.stdout


@pytest.mark.parametrize(("no_color", "colored"), [("", True), ("1", False)])
def test_no_color(engine: Path, no_color: str, colored: bool) -> None:
    """Colours where they are forced, as in a terminal, and none with NO_COLOR."""
    plugin(engine, "worker_x.rb")
    env = {"FORCE_COLOR": "1", "TERM": "xterm"} | ({"NO_COLOR": "1"} if no_color else {})
    result = command("check", "-c", "lmcache.yaml", cwd=engine, env=env)
    assert bool(re.search(r"\x1b\[[\d;]*3\dm", result.stdout)) is colored


def test_thousands_of_files(engine: Path) -> None:
    """In a moment; for people, the notes end somewhere."""
    for number in range(10_000):
        (engine / "plugins" / f"data_{number}.json").touch()
    plugin(engine, "worker_x.sh")
    output = check(engine)
    assert output.count("\nnote") == MAX_NOTES + 1
    assert "1 plugin, 0 errors, 0 warnings, 10,000 notes" in output


def test_no_location_that_exists_is_an_error(engine: Path) -> None:
    """Nothing can run; one missing beside others is a warning."""
    configure(engine, ["missing", "gone/all_x.sh"])
    text = check(engine, status=1)
    assert re.search(r"^error +no location exists: there is nothing to run$", text, re.MULTILINE)
    assert text.endswith("\n0 plugins, 1 error, 2 warnings, 0 notes\n")


def test_no_locations_and_switched_off_are_notes(engine: Path) -> None:
    """Nothing is wrong with either."""
    configure(engine, None)
    assert "no location is configured" in check(engine, "--strict")
    plugin(engine, "all_x.sh")
    configure(engine, "plugins", enabled=False)
    assert "'extra_config.runtime_plugins.enabled' is false" in check(engine, "--strict")


def test_settings_for_a_plugin_that_is_not_there(engine: Path) -> None:
    """With the name that was probably meant."""
    plugin(engine, "worker_x.sh")
    configure(engine, "plugins", plugins={"worker_y": {"enabled": True}})
    assert "did you mean 'worker_x'?" in check(engine)


@pytest.mark.parametrize("arguments", [(), ("-c", "missing.yaml"), ("-c", "malformed.yaml")])
def test_a_configuration_that_cannot_be_read_is_status_2(
    engine: Path, arguments: tuple[str, ...]
) -> None:
    """One line on stderr and nothing on stdout, so that no script reads half an answer."""
    (engine / "malformed.yaml").write_text("a: 1\nb: c: d\n")
    result = command("check", "--json", *arguments, cwd=engine)
    assert result.returncode == 2
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    if "malformed.yaml" in arguments:
        assert "malformed.yaml:2:5: " in result.stderr


def test_a_location_that_hangs_is_left_out_and_the_others_are_searched() -> None:
    """A hung mount blocks in the kernel; a sleep stands for that here."""

    def work(progress: Callable[[str], None], skip: frozenset[str]) -> int:
        progress("/good")
        if "/hung" not in skip:
            progress("/hung")
            time.sleep(600)
        return os.getpid()

    before = time.monotonic()
    pid, hung = patiently(work, patience=1)
    assert hung == ["/hung"]
    assert 1 <= time.monotonic() - before < 30
    until(lambda: state_of(pid) == "Z", "the child is gone")


def test_a_search_that_fails_is_said() -> None:
    """The child's traceback is on stderr; the parent does not wait for ever."""

    def work(progress: Callable[[str], None], skip: frozenset[str]) -> None:
        raise ValueError("by intention")

    with pytest.raises(RuntimeError, match="failed"):
        patiently(work)
    with pytest.raises(RuntimeError, match="does not answer"):
        patiently(lambda progress, skip: time.sleep(600), patience=0.1)


def test_replicas_that_run_plugins() -> None:
    """By the setting's default only the first."""
    settings, _ = read_settings({})
    engine = EngineSize(world_size=1, dp_size=4)
    assert {one.dp_rank for one in engine.processes(settings)} == {0}
    settings, _ = read_settings({"runtime_plugins": {"data_parallel": "all"}})
    assert {one.dp_rank for one in engine.processes(settings)} == {0, 1, 2, 3}
