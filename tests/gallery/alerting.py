# SPDX-License-Identifier: Apache-2.0
"""What the alert reporter's tests share: a real Alertmanager, receivers, and engines that grow."""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
import time
from base64 import b64encode
from collections.abc import Callable
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from harness import Engine, wait_until
from servers import Server, debian_binary, debian_directory

Start = Callable[..., Engine]
"""Starts an engine."""

NAME = "all_alert_reporter"
PLUGIN = """\
import sys

from lmcache_plugin_adapter.gallery.alert_reporter import main

sys.exit(main())
"""
USER, PASSWORD = "reporter", "right-password"
# Of PASSWORD, by bcrypt.
PASSWORD_HASH = "$2b$04$abcdefghijklmnopqrstuuS80hwFD6gSIL20SCUGvmL7S939BjOHW"

_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


class Receiver:
    """An HTTP server that keeps every POST it is sent, and answers as it is told.

    Args:
        check: Looks at each document; what it raises is kept for the test's end.
        port: On loopback; 0: a free one.
    """

    def __init__(self, check: Callable[[Any], None] | None = None, port: int = 0) -> None:
        self.documents: list[dict[str, Any]] = []
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.problems: list[str] = []
        self.status = 200
        self.headers: dict[str, str] = {}
        self.delay = 0.0
        """Seconds before an answer."""
        self.credentials: str | None = None
        """``user:password`` that must be given."""
        self.pass_to: str | None = None
        """Address of the server that answers in the end."""
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                # As set when the request came: who sees it may set something else at once.
                delay = receiver.delay
                receiver.requests.append((self.path, dict(self.headers)))
                time.sleep(delay)
                status = receiver._take(self.headers.get("Authorization"), self.path, body, check)
                self.send_response(status)
                for name, value in receiver.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        class HttpServer(ThreadingHTTPServer):
            daemon_threads = True
            allow_reuse_address = True

            def handle_error(self, *_: Any) -> None:
                """Who has gone away is no error."""

        self._server = HttpServer(("127.0.0.1", port), Handler)
        self.port: int = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        serve = self._server.serve_forever
        self._thread = threading.Thread(target=serve, args=(0.05,), daemon=True)
        self._thread.start()

    def _take(
        self, credentials: str | None, path: str, body: bytes, check: Callable[[Any], None] | None
    ) -> int:
        if self.credentials is not None:
            wanted = "Basic " + b64encode(self.credentials.encode()).decode()
            if credentials != wanted:
                return 401
        if self.pass_to is not None:
            headers = {"Content-Type": "application/json"}
            return httpx.post(self.pass_to + path, content=body, headers=headers).status_code
        if self.status >= 300:
            return self.status
        try:
            document = json.loads(body)
            if check is not None:
                check(document)
            self.documents.append(document)
        except Exception as error:
            self.problems.append(f"{error!r} in {body!r}")
        return self.status

    def close(self) -> None:
        """End it; every document must have been right."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        assert not self.problems

    def __enter__(self) -> Receiver:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def wait_for(self, status: str, name: str, seconds: float = 30.0) -> dict[str, Any]:
        """Return the first document of an alert with a status."""

        def look() -> dict[str, Any] | None:
            for document in list(self.documents):
                if document["status"] == status and document["name"] == name:
                    return document
            return None

        return wait_until(look, seconds, f"{name} {status}: {self.documents}")

    def notified(self, status: str, name: str, seconds: float = 30.0) -> dict[str, Any]:
        """Return an alert of Alertmanager's own notifications, which come here."""

        def look() -> dict[str, Any] | None:
            for document in list(self.documents):
                for alert in document["alerts"]:
                    if alert["status"] == status and alert["labels"]["alertname"] == name:
                        return alert
            return None

        return wait_until(look, seconds, f"{name} {status}: {self.documents}")


def check_webhook(document: dict[str, Any]) -> None:
    """Check every field of what a webhook is sent, as its page describes it."""
    kinds: dict[str, Any] = {
        "version": int,
        "status": str,
        "repeated": bool,
        "id": str,
        "name": str,
        "severity": str,
        "labels": dict,
        "annotations": dict,
        "measure": (str, type(None)),
        "value": (float, type(None)),
        "limit": (float, type(None)),
        "starts_at": str,
        "ends_at": (str, type(None)),
        "expires_at": (str, type(None)),
        "sent_at": str,
    }
    assert list(document) == list(kinds)
    for key, kind in kinds.items():
        assert isinstance(document[key], kind), key
    assert document["version"] == 1
    assert re.fullmatch(r"[0-9a-f]{16}", document["id"])
    assert document["labels"]["alertname"] == document["name"]
    assert document["labels"]["severity"] == document["severity"]
    assert all(document["labels"].values())
    assert {"summary", "description"} <= set(document["annotations"])
    for key in ("starts_at", "ends_at", "expires_at", "sent_at"):
        assert document[key] is None or _MOMENT.fullmatch(document[key]), key
    assert document["status"] in ("firing", "resolved")
    assert (document["ends_at"] is None) == (document["status"] == "firing")
    assert moment(document["starts_at"]) <= moment(document["sent_at"])
    if document["ends_at"] is not None:
        assert moment(document["starts_at"]) <= moment(document["ends_at"])
        assert document["expires_at"] is None
    if document["measure"] is None:
        assert document["value"] is document["limit"] is None


def moment(text: str) -> datetime:
    """Read RFC 3339 in UTC, of Python and of Go."""
    head, _, fraction = text.removesuffix("Z").partition(".")
    return datetime.fromisoformat(f"{head}.{(fraction + '000000')[:6]}+00:00")


class RealAlertmanager(Server):
    """Debian's Alertmanager, which notifies a webhook.

    Args:
        data: Its directory.
        hook: Address of the webhook that it notifies; None: nobody.
        secured: Whether it asks for ``USER`` and ``PASSWORD``.
    """

    def __init__(self, data: Path, hook: str | None = None, secured: bool = False) -> None:
        data.mkdir(parents=True)
        hooks = f"\n    webhook_configs: [{{url: '{hook}', send_resolved: true}}]" if hook else ""
        (data / "alertmanager.yml").write_text(
            "route: {receiver: hook, group_by: ['...'], group_wait: 0s, group_interval: 1s,\n"
            "        repeat_interval: 1h}\n"
            f"receivers:\n  - name: hook{hooks}\n"
        )
        (data / "web.yml").write_text(
            f"basic_auth_users: {{{USER}: '{PASSWORD_HASH}'}}\n" if secured else "{}\n"
        )
        self._auth = (USER, PASSWORD) if secured else None
        super().__init__(
            [
                *_among_its_files(),
                debian_binary("prometheus-alertmanager"),
                "--config.file={data}/alertmanager.yml",
                "--web.config.file={data}/web.yml",
                "--storage.path={data}/state",
                "--web.listen-address=127.0.0.1:{port}",
                "--cluster.listen-address=",
                "--log.level=debug",
            ],
            data,
        )

    def alerts(self) -> dict[str, dict[str, Any]]:
        """Return the alerts that it holds as firing, by name, as its v2 API tells them."""
        answer = httpx.get(f"{self.url}/api/v2/alerts", auth=self._auth, timeout=30)
        answer.raise_for_status()
        return {alert["labels"]["alertname"]: alert for alert in answer.json()}

    def wait_for(self, name: str, seconds: float = 30.0) -> dict[str, Any]:
        """Return an alert once it fires."""
        return wait_until(lambda: self.alerts().get(name), seconds, f"alert {name} fires")

    def wait_gone(self, name: str, seconds: float = 30.0) -> None:
        """Wait until an alert does not fire."""
        wait_until(lambda: name not in self.alerts(), seconds, f"alert {name} resolves")


def _among_its_files() -> list[str]:
    """Return the command that lets Debian's Alertmanager find its templates.

    Their path is written into the program, so the unpacked package's ``/usr/share`` is put over
    the machine's, for this one process.
    """
    share = debian_directory("prometheus-alertmanager", "usr/share")
    unshare = ["unshare", "--mount", *(() if os.getuid() == 0 else ("--map-root-user",))]
    command = [*unshare, "sh", "-c", 'mount --bind "$0" /usr/share && exec "$@"', str(share)]
    tried = subprocess.run([*command, "true"], check=False, capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f"no mount namespace for Debian's Alertmanager: {tried.stderr.strip()}")
    return command


def settings_of(stop_grace: float = 5, **settings: Any) -> dict[str, Any]:
    """Return the section ``runtime_plugins`` with the reporter's settings."""
    settings = {"interval": 0.1, "built_in_rules": False, **settings}
    return {
        "stop_grace": stop_grace,
        "restart": "never",
        "rate_limit": "off",
        # Otherwise the kernel kills the reporter before a full engine.
        "plugins": {NAME: {"oom_score_adj": 0, "settings": settings}},
    }


THREADS = {"name": "ManyThreads", "measure": "threads", "above": 50, "labels": {"team": "serving"}}
"""A rule that is easily met, and easily met no more."""

MORE_THREADS = """
import threading
release = threading.Event()
threads = [threading.Thread(target=release.wait, daemon=True) for _ in range(100)]
[thread.start() for thread in threads]
"""
FEWER_THREADS = """
release.set()
[thread.join() for thread in threads]
"""


def lines(engine: Engine) -> str:
    """Return what the reporter printed, with levels."""
    return "\n".join(f"{level}: {text}" for level, _, text in engine.records(NAME))


def wait_line(engine: Engine, pattern: str, seconds: float = 30.0) -> re.Match[str]:
    """Wait until the reporter has printed something."""
    return engine.wait_for(lambda: re.search(pattern, lines(engine)), seconds, pattern)


def wait_started(engine: Engine) -> int:
    """Wait until the reporter looks after its engine; return its pid."""
    wait_line(engine, "Watching engine process")
    return engine.plugin_pid(NAME)


def end_in_order(engine: Engine) -> str:
    """Let the engine close, and the reporter after it; return what it said."""
    assert engine.do("launcher.stop_plugins()") is None
    code = re.search(r"Stopped: (.*)", lines(engine))
    assert code is not None, lines(engine)
    assert "exited with code 0" in code[1], lines(engine)
    engine.close()
    return lines(engine)


def password_file(directory: Path, text: str) -> str:
    """Write a secret into a private file, at once as a whole."""
    path = directory / "password"
    new = directory / "password.new"
    new.write_text(text)
    new.chmod(0o600)
    os.replace(new, path)
    return str(path)
