# SPDX-License-Identifier: Apache-2.0
"""Receivers of logs: rsyslog as it is, and strict ones of our own that check every field."""

from __future__ import annotations

import contextlib
import gzip
import json
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

from harness import wait_until
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from servers import Server, debian_binary, debian_directory, debian_environment, free_port


def look(plugin: Any) -> None:
    """Return when the plugin has looked at its files: slept between two looks, several times."""
    threads = Path(f"/proc/{plugin.pid}/task")

    def slept() -> int:
        total = 0
        for path in threads.glob("*/status"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended
                text = path.read_text()
                found = re.search(r"^voluntary_ctxt_switches:\s+(\d+)", text, re.MULTILINE)
                total += 0 if found is None else int(found[1])
        return total

    before = slept()
    # What sends may sleep, too, and so may what saves: a look is one of a few.
    wait_until(lambda: slept() >= before + 10, 20, "looks at the files")


class Got(NamedTuple):
    """A record as it arrived."""

    text: str
    level: str
    time_ns: int
    fields: dict[str, str]


class HttpReceiver:
    """A server that takes batches, checks them, and can be told to misbehave.

    Args:
        status: Of a good answer.
    """

    path = ""
    content_type = ""

    def __init__(self, status: int) -> None:
        self.port = free_port()
        self.status = status
        self.say: tuple[int, bytes, dict[str, str]] | None = None
        """What it answers instead."""
        self.delay = 0.0
        self.want_headers: dict[str, str] = {}
        self.got: list[Got] = []
        self.complaints: list[str] = []
        self.requests = 0
        self._server: ThreadingHTTPServer | None = None
        self._open: set[socket.socket] | None = None
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        """Its address, without a path."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Listen."""
        receiver = self
        connections: set[socket.socket] = set()
        self._open = connections

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                with receiver._lock:
                    connections.add(self.connection)
                    stopped = receiver._open is not connections  # just after it was accepted
                if stopped:
                    with contextlib.suppress(OSError):
                        self.connection.shutdown(socket.SHUT_RDWR)

            def finish(self) -> None:
                connections.discard(self.connection)
                with contextlib.suppress(OSError):
                    super().finish()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

            def do_POST(self) -> None:
                receiver._post(self)

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        """Listen no longer."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
            with self._lock:
                connections, self._open = self._open or set(), None
            for connection in list(connections):
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def records(self) -> list[Got]:
        """Return what has arrived, once nothing was wrong with it."""
        assert self.complaints == []
        return list(self.got)

    def read(self, body: bytes) -> Iterator[Got]:
        """Return the records of a body; raise AssertionError on what is wrong."""
        raise NotImplementedError

    def _post(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers["Content-Length"]))
        self.requests += 1
        if self.delay:
            time.sleep(self.delay)
        status, answer, headers = self.say or (self.status, b"", {})
        for name, value in self.want_headers.items():
            if handler.headers.get(name) != value:
                status, answer, headers = 401, b"who are you? " + value.encode(), {}
        if 200 <= status < 300:
            try:
                assert handler.path == self.path, handler.path
                assert handler.headers["Content-Type"] == self.content_type
                if handler.headers.get("Content-Encoding"):
                    assert handler.headers["Content-Encoding"] == "gzip"
                    body = gzip.decompress(body)
                self.got += list(self.read(body))
            except Exception as error:
                self.complaints.append(repr(error))
                status, answer = 400, repr(error).encode()
        with contextlib.suppress(OSError):
            handler.send_response(status)
            for name, value in headers.items():
                handler.send_header(name, value)
            handler.send_header("Content-Length", str(len(answer)))
            handler.end_headers()
            handler.wfile.write(answer)


class Loki(HttpReceiver):
    """Loki's push API, as its documentation has it."""

    path = "/loki/api/v1/push"
    content_type = "application/json"

    def __init__(self) -> None:
        super().__init__(204)
        self.streams: set[tuple[tuple[str, str], ...]] = set()

    def read(self, body: bytes) -> Iterator[Got]:
        """Check streams, labels, times and metadata."""
        found = json.loads(body)
        assert list(found) == ["streams"]
        assert found["streams"]
        seen = set()
        for stream in found["streams"]:
            assert set(stream) == {"stream", "values"}
            labels = stream["stream"]
            assert labels
            for name, value in labels.items():
                assert re.fullmatch(r"[a-zA-Z_][a-zA-Z0-9_]*", name), name
                assert isinstance(value, str), value
                assert value, name
            key = tuple(sorted(labels.items()))
            assert key not in seen, "a stream stands twice in a push"
            seen.add(key)
            assert stream["values"]
            for at, line, *rest in stream["values"]:
                assert re.fullmatch(r"\d{19}", at), at
                assert isinstance(line, str)
                assert len(rest) <= 1
                metadata = rest[0] if rest else {}
                assert all(isinstance(value, str) for value in metadata.values())
                yield Got(line, labels["level"], int(at), {**labels, **metadata})
        self.streams |= seen


class Otlp(HttpReceiver):
    """A collector of OTLP logs over HTTP, after the specification."""

    path = "/v1/logs"
    content_type = "application/x-protobuf"
    levels = {5: "DEBUG", 9: "INFO", 13: "WARN", 17: "ERROR", 21: "FATAL"}  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__(200)

    def read(self, body: bytes) -> Iterator[Got]:
        """Check resource, scopes and records."""
        request = ExportLogsServiceRequest()
        request.ParseFromString(body)
        assert request.resource_logs
        resources = []
        for logs in request.resource_logs:
            resource = {one.key: one.value.string_value for one in logs.resource.attributes}
            assert resource["service.name"]
            assert resource["host.name"]
            assert resource not in resources, "a resource stands twice in an export"
            resources.append(resource)
            names = [scope.scope.name for scope in logs.scope_logs]
            assert len(names) == len({*names})
            for scope in logs.scope_logs:
                assert scope.log_records
                for record in scope.log_records:
                    fields = self._fields(record)
                    yield Got(
                        record.body.string_value,
                        record.severity_text,
                        record.time_unix_nano,
                        {**resource, **fields, "scope": scope.scope.name},
                    )

    def _fields(self, record: LogRecord) -> dict[str, str]:
        assert abs(record.observed_time_unix_nano - time.time_ns()) < 600 * 10**9
        assert self.levels[record.severity_number] == record.severity_text
        assert record.body.WhichOneof("value") == "string_value"
        keys = [one.key for one in record.attributes]
        assert len(keys) == len(set(keys))
        return {
            one.key: str(getattr(one.value, str(one.value.WhichOneof("value"))))
            for one in record.attributes
        }

    @staticmethod
    def partly(rejected: int, why: str) -> tuple[int, bytes, dict[str, str]]:
        """Return an answer that rejects some records."""
        answer = ExportLogsServiceResponse()
        answer.partial_success.rejected_log_records = rejected
        answer.partial_success.error_message = why
        return 200, answer.SerializeToString(), {}


_SYSLOG = re.compile(
    r"<(?P<pri>\d{1,3})>1 "
    r"(?P<time>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z) "
    r"(?P<host>[!-~]{1,255}) (?P<app>[!-~]{1,48}) (?P<procid>[!-~]{1,128}) (?P<msgid>[!-~]{1,32}) "
    r'\[(?P<id>[^\s="\]]{1,32})(?P<params>(?: [^\s="\]]{1,32}="(?:\\["\\\]]|[^"\\\]])*")*)\]'
    r"(?: (?P<text>.*))?",
    re.DOTALL,
)
_PARAM = re.compile(r' ([^\s="\]]{1,32})="((?:\\["\\\]]|[^"\\\]])*)"')
LEVELS = {2: "critical", 3: "error", 4: "warning", 6: "info", 7: "debug"}


class TlsSyslog:
    """A receiver of RFC 5425 that checks each frame of each connection.

    Args:
        certificate: Certificate and key, in one file.
        ca: Who must have signed the client's certificate; None: nobody.
    """

    def __init__(self, certificate: Path, ca: Path | None = None) -> None:
        self.port = free_port()
        self.got: list[Got] = []
        self.complaints: list[str] = []
        self.connections = 0
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate)
        if ca is not None:
            self._context.verify_mode = ssl.CERT_REQUIRED
            self._context.load_verify_locations(ca)
        self._listener: socket.socket | None = None

    def start(self) -> None:
        """Listen."""
        self._listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._serve, args=(self._listener,), daemon=True).start()

    def stop(self) -> None:
        """Listen no longer."""
        if self._listener is not None:
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None

    def records(self) -> list[Got]:
        """Return what has arrived, once nothing was wrong with it."""
        assert self.complaints == []
        return list(self.got)

    def _serve(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        self.connections += 1
        try:
            with self._context.wrap_socket(connection, server_side=True) as tls:
                data = b""
                while piece := tls.recv(65536):
                    data += piece
                self.got += list(read_frames(data))
                with contextlib.suppress(OSError):
                    tls.unwrap()
        except OSError:
            connection.close()
        except AssertionError as error:
            self.complaints.append(repr(error))
            connection.close()


def read_frames(data: bytes) -> Iterator[Got]:
    """Return the messages of a connection in octet counting; raise on what is wrong."""
    while data:
        count, _, data = data.partition(b" ")
        assert re.fullmatch(rb"[1-9]\d*", count), count
        assert int(count) <= len(data)
        message, data = data[: int(count)], data[int(count) :]
        yield read_message(message.decode())


def read_message(message: str) -> Got:
    """Return a message of RFC 5424; raise on what is wrong."""
    found = _SYSLOG.fullmatch(message)
    assert found, message
    fields = {
        name: re.sub(r'\\(["\\\]])', r"\1", value)
        for name, value in _PARAM.findall(found["params"])
    }
    fields.update({key: found[key] for key in ("host", "app", "procid", "msgid", "id")})
    fields["facility"] = str(int(found["pri"]) // 8)
    second, _, fraction = found["time"].rstrip("Z").partition(".")
    moment = time.strptime(f"{second} +0000", "%Y-%m-%dT%H:%M:%S %z")
    at = timegm(moment) * 10**9 + int(fraction) * 1000
    return Got(found["text"] or "", LEVELS[int(found["pri"]) % 8], at, fields)


def timegm(moment: time.struct_time) -> int:
    """Return the seconds since 1970 of a time in UTC."""
    import calendar

    return calendar.timegm(moment)


# Without a queue: what it has taken is written, also when it is killed in that moment.
RSYSLOG = """\
global(workDirectory="{data}" maxMessageSize="8k" processInternalMessages="on")
main_queue(queue.type="Direct")
{tls}
module(load="imtcp" {driver})
input(type="imtcp" port="{port}" address="127.0.0.1")
template(name="all" type="string"
  string="<%pri%>1 %timereported:::date-utc,date-rfc3339% %hostname% %app-name% %procid% %msgid% \
%structured-data% %msg%\\n")
if $inputname == "imtcp" then action(type="omfile" file="{data}/received" template="all")
else action(type="omfile" file="{data}/own")
"""


class Rsyslog:
    """Debian's rsyslog, which writes what it receives to a file.

    Args:
        data: Its directory.
        certificate: Certificate and key for TLS; None: TCP.
        ca: Who signed the certificate.
    """

    def __init__(self, data: Path, certificate: Path | None = None, ca: Path | None = None) -> None:
        program = debian_binary("rsyslog", "rsyslogd")
        libraries = "usr/lib/*-linux-gnu/rsyslog"
        modules = [*debian_directory("rsyslog", "").glob(libraries)]
        environment = debian_environment("rsyslog")
        tls = driver = ""
        if certificate is not None:
            modules += debian_directory("rsyslog-gnutls", "").glob(libraries)
            tls = (
                f'global(defaultNetstreamDriver="gtls" defaultNetstreamDriverCAFile="{ca}" '
                f'defaultNetstreamDriverCertFile="{certificate}" '
                f'defaultNetstreamDriverKeyFile="{certificate}")'
            )
            driver = 'streamDriver.name="gtls" streamDriver.mode="1" streamDriver.authMode="anon"'
        data.mkdir(parents=True, exist_ok=True)
        self._received = data / "received"
        self._records: list[Got] = []
        self._read = 0
        self.server = Server(
            [
                program,
                "-n",
                "-f",
                data / "rsyslog.conf",
                "-i",
                data / "pid",
                "-M",
                ":".join(str(module) for module in modules),
            ],
            data,
            env=environment,
        )
        self.port = self.server.port
        (data / "rsyslog.conf").write_text(
            RSYSLOG.format(data=data, port=self.port, tls=tls, driver=driver)
        )

    def start(self) -> None:
        """Listen."""
        self.server.start()

    def stop(self) -> None:
        """Kill it."""
        self.server.stop()

    def records(self) -> list[Got]:
        """Return what it has written, each line checked."""
        if self._received.exists():
            with self._received.open("rb") as file:
                file.seek(self._read)
                new = file.read()
            whole = new[: new.rfind(b"\n") + 1]
            self._read += len(whole)
            lines = whole.decode().splitlines()
            self._records += [read_message(line.replace("+00:00 ", "Z ", 1)) for line in lines]
        return list(self._records)
