# SPDX-License-Identifier: Apache-2.0
"""LMCache's rule of file names, and ``check``'s notes where this package differs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from lmcache_plugin_adapter.cli.check.lmcache_rule import lmcache_runs
from lmcache_plugin_adapter.cli.main import app
from lmcache_plugin_adapter.contract.identity import ProcessIdentity, Role

SCHEDULER = ProcessIdentity(Role.SCHEDULER, -1, 2)
WORKERS = [ProcessIdentity(Role.WORKER, rank, 2) for rank in (0, 1)]
PROCESSES = {"scheduler": SCHEDULER, "worker 0": WORKERS[0], "worker 1": WORKERS[1]}
EVERYWHERE = set(PROCESSES)


@pytest.mark.parametrize(
    ("name", "processes"),
    [
        ("worker_1.sh", {"worker 0", "worker 1"}),
        ("all_0.sh", EVERYWHERE),
        ("worker_1_x.sh", {"worker 1"}),
        ("all_0_x.sh", {"worker 0"}),
        ("scheduler_0.py", {"scheduler"}),
        ("scheduler_0_x.py", set()),
        ("scheduler.py", EVERYWHERE),
        ("utils.py", EVERYWHERE),
        ("foo_plugin.py", set()),
        ("WORKER_x.py", {"worker 0", "worker 1"}),
        ("worker_x.pl", set()),
        ("worker_x", set()),
        ("server_x.py", set()),
    ],
)
def test_where_lmcache_runs_a_file(name: str, processes: set[str]) -> None:
    """In vLLM's processes."""
    assert {word for word, one in PROCESSES.items() if lmcache_runs(name, one)} == processes


def test_a_scheduler_with_an_engine_has_the_id_0() -> None:
    """As with ``enable_scheduler_bypass_lookup``."""
    assert lmcache_runs("scheduler_0_x.py", SCHEDULER, has_engine=True)
    assert not lmcache_runs("scheduler_1_x.py", SCHEDULER, has_engine=True)


def test_the_server_has_no_roles() -> None:
    """Every ``.py`` and ``.sh`` runs."""
    server = ProcessIdentity(Role.SERVER, 0, 1)
    assert lmcache_runs("mp_heartbeat.sh", server)
    assert not lmcache_runs("server_x", server)


def checked(
    directory: Path, capsys: pytest.CaptureFixture[str], files: dict[str, str], **config: Any
) -> dict[str, list[str]]:
    """Return what ``check`` says for two workers, by file name; notes of no file by ``""``."""
    plugins = directory / "plugins"
    plugins.mkdir()
    for name, text in files.items():
        (plugins / name).write_text(text)
    path = directory / "lmcache.yaml"
    path.write_text(json.dumps({"runtime_plugin_locations": [str(plugins)], **config}))
    with pytest.raises(SystemExit):
        app(["check", "-c", str(path), "--tp", "2", "--json"])
    report = json.loads(capsys.readouterr().out)
    notes = {"": [one["text"] for one in report["problems"] if one["level"] == "note"]}
    for one in report["files"]:
        notes[Path(one["path"]).name] = [problem["text"] for problem in one["problems"]]
    return notes


def test_check_notes_each_difference(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where LMCache's own launcher runs the file, and where this package does."""
    different = {
        "worker_1.sh": ("every worker", "worker 1"),
        "all_0.sh": ("every process", "worker 0"),
        "worker.py": ("every process", "every worker"),
    }
    same = ("worker_1_x.sh", "all_x.sh", "scheduler_x.py", "WORKER_0_x.sh", "worker_x.pl")
    notes = checked(
        tmp_path, capsys, dict.fromkeys([*different, *same, "scheduler_0.py"], "#!/bin/sh\n")
    )
    for name, (theirs, ours) in different.items():
        (text,) = [text for text in notes[name] if "LMCache's own launcher" in text]
        assert re.search(rf"runs it on {theirs};.* on {ours}", text), (name, text)
    (text,) = notes["scheduler_0.py"]  # the warning that it never runs
    assert "never runs" in text
    assert text.endswith("(LMCache's own launcher runs it on scheduler)")
    for name in same:
        assert not [text for text in notes[name] if "LMCache's own launcher" in text], name


@pytest.mark.parametrize("quote", ["'", '"'])
def test_a_plugin_that_compares_the_role_in_lower_case(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], quote: str
) -> None:
    """LMCache gives the role in lower case, this package in upper case."""
    lower = f"os.environ['LMCACHE_RUNTIME_PLUGIN_ROLE'] == {quote}scheduler{quote}\n"
    files = {
        "all_lower.py": lower,
        "all_upper.py": lower.replace("scheduler", "SCHEDULER"),
        "all_any.py": lower.replace("'] ==", "'].lower() =="),
        "all_other.py": f"role == {quote}scheduler{quote}\n",
    }
    notes = checked(tmp_path, capsys, files)
    assert [name for name, texts in notes.items() if any("upper case" in t for t in texts)] == [
        "all_lower.py"
    ]


def test_bypass_lookup(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """LMCache gives a scheduler with an engine the id 0."""
    files = {"scheduler_0_x.py": "\n", "scheduler_x.py": "\n"}
    notes = checked(tmp_path, capsys, files, enable_scheduler_bypass_lookup=True)
    assert [text for text in notes[""] if "enable_scheduler_bypass_lookup" in text]
    assert [text for text in notes["scheduler_0_x.py"] if "runs it on scheduler)" in text]
    assert notes["scheduler_x.py"] == []


def test_no_note_without_bypass_lookup(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing else differs."""
    notes = checked(tmp_path, capsys, {"scheduler_0_x.py": "\n"})
    assert not [text for texts in notes.values() for text in texts if "LMCache" in text]
