"""The settings: which files, how they are read, where the records go."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from lmcache_plugin_adapter.gallery.http_client.address import Filled
from lmcache_plugin_adapter.gallery.http_client.target import HttpTarget

_Port = Annotated[int, Meta(ge=1, le=65535)]
_Name = Annotated[str, Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


class SyslogTarget(msgspec.Struct, kw_only=True):
    """A syslog server: RFC 5424 over TCP or TLS."""

    host: Filled
    """Name or address of the server."""
    port: _Port | None = None
    """Its TCP port; 514, with `tls` 6514, if not set."""
    tls: bool = False
    """Whether to speak TLS (RFC 5425)."""
    ca_file: Filled | None = None
    """Certificates (PEM) that the server's must come from; the system's if not set."""
    cert_file: Filled | None = None
    """Certificate (PEM) to show to the server."""
    key_file: Filled | None = None
    """Key of `cert_file`, where it is not in that file."""
    server_name: Filled | None = None
    """Name that the server's certificate must have; `host` if not set."""
    verify: bool = True
    """`false` accepts any certificate of the server: for trials only."""
    facility: Literal[
        "user",
        "daemon",
        "local0",
        "local1",
        "local2",
        "local3",
        "local4",
        "local5",
        "local6",
        "local7",
    ] = "local0"
    """Facility of the records."""
    app_name: Annotated[
        str,
        Meta(
            pattern=r"^[!-~]{1,48}$",
            extra={"accepted": "text of 1 to 48 printable ASCII characters without spaces"},
        ),
    ] = "vllm"
    """APP-NAME of the records."""
    sd_id: Annotated[
        str,
        Meta(
            pattern=r"^[!#-<>-\\^-~]{1,32}$",
            extra={
                "accepted": "text of 1 to 32 printable ASCII characters without spaces, "
                "quotes, '=' and ']'"
            },
        ),
    ] = "lmcache@32473"
    """SD-ID of the structured data; the number is the one that RFC 5612 keeps for examples: put
    your own enterprise number there."""
    max_message_bytes: Annotated[int, Meta(ge=1024)] = 8000
    """Longer messages are sent in parts; rsyslog takes 8 KiB unless `maxMessageSize` says
    otherwise."""
    timeout: Annotated[float, Meta(gt=0, le=3600)] = 10.0
    """Seconds in which a batch must have been confirmed."""

    def __post_init__(self) -> None:
        """Refuse what has no meaning without TLS."""
        if self.key_file is not None and self.cert_file is None:
            raise ValueError("key_file needs cert_file")
        if not self.tls:
            for key in ("ca_file", "cert_file", "server_name"):
                if getattr(self, key) is not None:
                    raise ValueError(f"{key} needs tls: true")


class LokiTarget(HttpTarget, kw_only=True):
    """Grafana Loki, or what takes its push API."""

    tenant: Filled | None = None
    """Tenant, sent as `X-Scope-OrgID`."""
    labels: dict[_Name, str] = msgspec.field(default_factory=dict)
    """Labels of all streams, besides those of the records; `job` is one."""
    structured_metadata: bool = True
    """Whether logger, source, process id and file go along as structured metadata (Loki 3; in 2.9
    and with a schema before v13 it is to be switched off)."""
    gzip: bool = True
    """Whether to compress what is sent."""


class OtlpTarget(HttpTarget, kw_only=True):
    """An OpenTelemetry collector, or what takes OTLP logs over HTTP."""

    service_name: Filled = "vllm"
    """Attribute `service.name`."""
    attributes: dict[Filled, str] = msgspec.field(default_factory=dict)
    """More attributes of the resource."""
    gzip: bool = True
    """Whether to compress what is sent."""


class LogReporterSettings(msgspec.Struct, kw_only=True):
    """What the log reporter follows, and where it delivers."""

    files: Annotated[
        list[Filled] | Filled, Meta(extra={"accepted": "a path or pattern, or a list of them"})
    ] = []
    """Files to follow: paths or patterns (`*`, `?`, `[…]`, `**`). `~` and `$VARS` are expanded;
    relative paths are relative to the engine's working directory. Names of rotated files do not
    match a pattern. If not set: the file that the engine's stdout and stderr go to."""
    syslog: SyslogTarget | None = None
    """Deliver to syslog."""
    loki: LokiTarget | None = None
    """Deliver to Loki."""
    otlp: OtlpTarget | None = None
    """Deliver as OTLP logs over HTTP."""
    level: Literal["debug", "info", "warning", "error", "critical"] = "debug"
    """Less urgent records are left out."""
    start: Literal["beginning", "end"] = "beginning"
    """Where to begin in files that are there when it first runs."""
    state_directory: Filled | None = None
    """Where positions are remembered; `~` and `$VARS` are expanded. If not set:
    `$XDG_STATE_HOME/lmcache-plugins/NAME`, or `~/.local/state/lmcache-plugins/NAME`, with the
    plugin's name."""
    poll: Annotated[float, Meta(ge=0.05, le=60)] = 0.5
    """Seconds between two looks at the files."""
    batch_records: Annotated[int, Meta(ge=1, le=100_000)] = 1000
    """Records with which a batch is sent."""
    batch_bytes: Annotated[int, Meta(ge=1024)] = 524_288
    """Characters of text with which a batch is sent."""
    batch_age: Annotated[float, Meta(ge=0, le=300)] = 1.0
    """Seconds after which a batch is sent in any case."""
    max_line_bytes: Annotated[int, Meta(ge=256, le=65_536)] = 32_768
    """Longer lines are cut, with a mark."""
    max_record_bytes: Annotated[int, Meta(ge=256)] = 65_536
    """A record of several lines that is longer is divided."""
    record_wait: Annotated[float, Meta(ge=0, le=60)] = 1.0
    """Seconds that a record waits for more lines of it."""
