# SPDX-License-Identifier: Apache-2.0
"""Record the pictures of the documentation from a real session: engines, plugins, commands.

``python docs/images/record.py`` starts stand-in engines with a few plugins,
types commands on a terminal of its own and writes what that shows as SVG.
"""

from __future__ import annotations

import fcntl
import os
import pty
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.text import Text

HERE = Path(__file__).resolve().parent

PLUGINS = {
    "scheduler_queue_report.py": (
        "#!/usr/bin/env python3\nimport time\nn = 0\nwhile True:\n"
        "    n += 1\n    print(f'{n} requests waited, longest {n * 3 % 17} ms')\n"
        "    time.sleep(0.5)\n"
    ),
    "all_heartbeat.sh": "while :; do echo alive; sleep 1; done\n",
    "worker_push_stats.sh": (
        "echo 'connecting to collector:4317'; sleep 0.5\n"
        "echo '<3>cannot connect to collector:4317: connection refused'; exit 3\n"
    ),
    "worker_1_nic_check.sh": "exec sleep infinity\n",
}
NOTIFY = (
    "import os, socket, time\nsender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n"
    "sender.connect(os.environ['NOTIFY_SOCKET'].replace('@', '\\0'))\n"
)
NOTIFYING = {
    "all_exporter.py": NOTIFY + "while True:\n"
    "    sender.send(b'READY=1\\nWATCHDOG=1\\nSTATUS=12 series exported')\n    time.sleep(0.5)\n",
    "all_warm_up.py": NOTIFY + "while True:\n"
    "    sender.send(b'WATCHDOG=1\\nSTATUS=reading the index')\n    time.sleep(0.5)\n",
    "all_uploader.py": NOTIFY + "sender.send(b'READY=1')\ntime.sleep(600)\n",
}
NOTIFYING_SETTINGS = (
    "extra_config:\n  runtime_plugins: {notify: true, watchdog: 2s, backoff: {initial: 30}}\n"
)
SHOWN = ("all_heartbeat.sh", "worker_push_stats.sh")
REFUSED = "worker_1_nic_check.sh"


class Session(NamedTuple):
    """What a picture shows.

    Attributes:
        title: Above the terminal.
        workers: Of the engine that runs meanwhile; 0: no engine runs.
        columns: Width of the terminal.
        commands: What is typed.
        plugins: Their files, by name.
        settings: Added to the configuration.
    """

    title: str
    workers: int
    columns: int
    commands: list[str]
    plugins: dict[str, str] = PLUGINS
    settings: str = ""


SESSIONS = {
    "run": Session(
        "lmcache-plugins run on a terminal",
        0,
        118,
        [f"lmcache-plugins run {' '.join(f'plugins/{name}' for name in SHOWN)} --tp 2 --for 2"],
    ),
    "status": Session(
        "an engine with eight workers, on a terminal of 80 columns",
        8,
        80,
        ["lmcache-plugins status"],
    ),
    "ready": Session(
        "plugins that notify: one ready, one waiting, one hung",
        1,
        100,
        ["lmcache-plugins status"],
        NOTIFYING,
        NOTIFYING_SETTINGS,
    ),
    "act": Session(
        "act on plugins while the engine serves",
        2,
        112,
        [
            "lmcache-plugins logs worker_push_stats --worker-id 0 -n 4",
            "lmcache-plugins stop worker_push_stat --worker-id 0",
            "lmcache-plugins stop worker_push_stats",
            "lmcache-plugins stop worker_push_stats --all --wait",
            "chmod go-w plugins/worker_1_nic_check.sh && lmcache-plugins reload",
            "lmcache-plugins status --check all_heartbeat worker_1_nic_check; echo $?",
        ],
    ),
}
"""By the picture's name."""


def main() -> None:
    """Start engines, type, draw, end; the arguments name pictures, all without arguments."""
    for picture, session in SESSIONS.items():
        if picture in (sys.argv[1:] or SESSIONS):
            with tempfile.TemporaryDirectory() as name:
                record(picture, session, Path(name))


def record(picture: str, session: Session, directory: Path) -> None:
    """Record one picture."""
    (directory / "plugins").mkdir()
    (directory / "run").mkdir(mode=0o700)
    (directory / "lmcache.yaml").write_text(
        "runtime_plugin_locations: [plugins]\n" + session.settings
    )
    for file, text in session.plugins.items():
        path = directory / "plugins" / file
        path.write_text(text)
        path.chmod(0o777 if file == REFUSED else 0o755)
    environment = {
        **os.environ,
        "PATH": os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]]),
        "LMCACHE_PLUGINS_RUNTIME_DIR": str(directory / "run"),
        "TERM": "xterm-256color",
        "PS1": "",
    }
    environment.pop("NO_COLOR", None)
    command = [sys.executable, "-m", "lmcache_plugin_adapter", "run", "-c", "lmcache.yaml"]
    engines = None
    if session.workers:
        engines = subprocess.Popen(
            [*command, "--tp", str(session.workers)],
            cwd=directory,
            env={**environment, "PYTHONPATH": str(HERE.parents[1])},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    try:
        if engines:
            time.sleep(8)  # long enough for some restarts
        shown = [
            (one, typed(one, directory, environment, session.columns)) for one in session.commands
        ]
        draw(picture, session, shown)
    finally:
        if engines:
            engines.send_signal(signal.SIGINT)
            engines.wait()


def typed(command: str, directory: Path, environment: dict[str, str], columns: int) -> str:
    """Run a command on a terminal and return what that shows."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, columns, 0, 0))
    process = subprocess.Popen(
        [shutil.which("sh") or "/bin/sh", "-c", command],
        cwd=directory,
        env=environment,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # how Linux says that the other end is closed
            break
        if not part:
            break
        shown += part
    os.close(ours)
    process.wait()
    text = shown.decode().replace("\r\n", "\n")
    text = text.replace(os.path.dirname(sys.executable), "/opt/venv/bin")
    return text.replace(str(directory), "/etc/lmcache")


def draw(picture: str, session: Session, shown: list[tuple[str, str]]) -> None:
    """Write what a terminal showed as a picture."""
    with open(os.devnull, "w") as nowhere:
        console = Console(record=True, width=session.columns, file=nowhere, force_terminal=True)
        for command, output in shown:
            console.print(Text.assemble(("$ ", "bold green"), (command, "bold")))
            console.print(Text.from_ansi(output.rstrip("\n")))
            console.print()
        svg = console.export_svg(title=session.title, unique_id=picture)
    # Some viewers drop spaces at the start of a text otherwise.
    svg = svg.replace("<text ", '<text xml:space="preserve" ')
    (HERE / f"{picture}.svg").write_text(svg)


if __name__ == "__main__":
    main()
