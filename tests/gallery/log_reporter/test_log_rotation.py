# SPDX-License-Identifier: Apache-2.0
"""The programs that rotate logs: Debian's logrotate, and the adapter's own files."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import wait_until
from log_receivers import Loki, look
from plugins import LOG_REPORTER, log_settings
from servers import debian_binary, debian_environment

from lmcache_plugin_adapter.supervisor.output.log_file import RotatedFile

MODES = {
    "create": "create",
    "create-dateext": "create\ndateext\ndateformat -%Y%m%d-%s",
    "copytruncate": "copytruncate",
    "compress": "create\ncompress\ndelaycompress",
}


class Run:
    """A log that is followed, and where it arrives."""

    def __init__(self, directory: Path, run_plugin: Callable[..., Any]) -> None:
        self.log = directory / "logs" / "vllm.log"
        self.log.parent.mkdir(mode=0o755)
        self.loki = Loki()
        self.loki.start()
        self.written = 0
        self._settings = log_settings(
            directory,
            files=str(self.log),
            loki={"url": self.loki.url},
        )
        self._run = run_plugin

    def start(self) -> Any:
        """Start an engine with the plugin."""
        plugin = self._run(LOG_REPORTER, settings=self._settings)
        plugin.wait_for("Delivers to")
        return plugin

    def line(self) -> bytes:
        """Return the next line."""
        self.written += 1
        number = self.written - 1
        return f"[2026-11-22 07:06:56,699] LMCache INFO: [p] {number} (p.py:1:a.b)\n".encode()

    def write(self, count: int) -> None:
        """Log some lines, as a program that opens the file each time."""
        for _ in range(count):
            with self.log.open("ab") as file:
                file.write(self.line())

    def wait_all(self) -> None:
        """Wait until all lines have arrived."""
        wait_until(lambda: len(set(self.got())) >= self.written, 20, f"{self.written} lines")

    def got(self) -> list[str]:
        """Return what has arrived."""
        return [one.text for one in self.loki.records() if one.text.startswith("[p]")]

    def expected(self) -> list[str]:
        """Return what was written."""
        return [f"[p] {number}" for number in range(self.written)]


@pytest.fixture
def run(tmp_path: Path, run_plugin: Callable[..., Any]) -> Any:
    """A log and a receiver."""
    made = Run(tmp_path, run_plugin)
    yield made
    made.loki.stop()


def rotate(program: Path, directory: Path, configuration: Path) -> None:
    """Run logrotate."""
    done = subprocess.run(
        [program, "-f", "-s", directory / "rotated", configuration],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        env=debian_environment("logrotate"),
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("mode", MODES)
def test_logrotate(run: Run, tmp_path: Path, mode: str) -> None:
    """Under way, while the target is away, while nobody follows: every line once, in order."""
    program = debian_binary("logrotate")
    configuration = tmp_path / "logrotate.conf"
    configuration.write_text(f"{run.log} {{\nrotate 9\nsize 1\nmissingok\n{MODES[mode]}\n}}\n")
    configuration.chmod(0o644)

    plugin = run.start()
    for _ in range(2):  # under way
        run.write(50)
        run.wait_all()
        run.write(5)
        look(plugin)
        rotate(program, tmp_path, configuration)
        run.write(50)
    run.wait_all()
    run.loki.stop()  # while the target is away
    run.write(20)
    look(plugin)
    rotate(program, tmp_path, configuration)
    run.write(20)
    look(plugin)
    run.loki.start()
    run.wait_all()
    assert plugin.stop() == 0
    run.write(20)  # while nobody follows
    rotate(program, tmp_path, configuration)
    run.write(20)
    plugin = run.start()
    run.wait_all()
    assert plugin.stop() == 0
    assert run.got() == run.expected()
    assert not [line for line in plugin.lines if line.level == "warning"]


def test_logs_with_the_same_beginning(
    tmp_path: Path, run_plugin: Callable[..., Any], loki: Loki
) -> None:
    """Two logs in a directory begin with the same banner: each record has the name of its file."""
    program = debian_binary("logrotate")
    logs = [tmp_path / "logs" / name for name in ("vllm.log", "vllm-worker.log")]
    logs[0].parent.mkdir(mode=0o755)
    configuration = tmp_path / "logrotate.conf"
    configuration.write_text(f"{logs[0]} {{\nrotate 9\nsize 1\nmissingok\ncopytruncate\n}}\n")
    configuration.chmod(0o644)
    written: dict[str, list[str]] = {str(log): [] for log in logs}

    def write(log: Path, count: int) -> None:
        for _ in range(count):
            text = f"{log.name} {len(written[str(log)])}"
            written[str(log)].append(text)
            with log.open("a") as file:
                file.write(f"[2026-11-22 07:06:56,699] LMCache INFO: {text} (p.py:1:a.b)\n")

    def begin(log: Path) -> None:
        with log.open("a") as file:
            file.write("INFO 11-22 07:06:55 [banner.py:1] " + "#" * 300 + "\n")

    def got() -> dict[str, list[str]]:
        found: dict[str, list[str]] = {str(log): [] for log in logs}
        for one in loki.records():
            if not one.text.startswith("#"):
                found[one.fields["filename"]].append(one.text)
        return found

    def complete() -> bool:
        return all(len(got()[path]) >= len(texts) for path, texts in written.items())

    for log in logs:
        begin(log)
    write(logs[1], 150)
    settings = log_settings(
        tmp_path,
        files=[str(log) for log in logs],
        loki={"url": loki.url},
    )
    plugin = run_plugin(LOG_REPORTER, settings=settings)
    for _ in range(3):
        write(logs[0], 10)
        wait_until(complete, 20)
        write(logs[0], 10)
        look(plugin)
        rotate(program, tmp_path, configuration)
        begin(logs[0])
        write(logs[0], 10)
        wait_until(complete, 20)
    assert plugin.stop() == 0
    write(logs[0], 10)  # while nobody follows; what follows is longer than what was read
    rotate(program, tmp_path, configuration)
    begin(logs[0])
    write(logs[0], 60)
    plugin = run_plugin(LOG_REPORTER, settings=settings)
    wait_until(complete, 20)
    assert plugin.stop() == 0
    assert got() == written


def test_the_adapter_s_own_files(run: Run) -> None:
    """As with ``log: {directory: …}``: rotated by size, many times."""
    file = RotatedFile(None, bytes(run.log), 20_000, 5)  # type: ignore[arg-type]
    plugin = run.start()
    file.write(run.line())
    run.wait_all()  # what is rotated away before it is seen was never there
    for _ in range(40):
        file.write(b"".join(run.line() for _ in range(100)))
        wait_until(lambda: len(run.got()) >= run.written - 400, 20)
    file.close()
    run.wait_all()
    assert plugin.stop() == 0
    assert run.got() == run.expected()
