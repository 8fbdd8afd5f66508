"""The settings: which files, how they are read, where the records go."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from lmcache_plugin_adapter.gallery.http_client.target import Filled, HttpTarget

_Port = Annotated[int, Meta(ge=1, le=65535)]
_Name = Annotated[str, Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


class SyslogTarget(msgspec.Struct, kw_only=True):
    """A syslog server: RFC 5424 over TCP or TLS."""

    host: Annotated[Filled, Meta(description="Name or address of the server.")]
    port: Annotated[
        _Port | None, Meta(description="Its TCP port; 514, with `tls` 6514, if not set.")
    ] = None
    tls: Annotated[bool, Meta(description="Whether to speak TLS (RFC 5425).")] = False
    ca_file: Annotated[
        Filled | None,
        Meta(
            description="Certificates (PEM) that the server's must come from; the system's "
            "if not set."
        ),
    ] = None
    cert_file: Annotated[
        Filled | None, Meta(description="Certificate (PEM) to show to the server.")
    ] = None
    key_file: Annotated[
        Filled | None, Meta(description="Key of `cert_file`, where it is not in that file.")
    ] = None
    server_name: Annotated[
        Filled | None,
        Meta(description="Name that the server's certificate must have; `host` if not set."),
    ] = None
    verify: Annotated[
        bool, Meta(description="`false` accepts any certificate of the server: for trials only.")
    ] = True
    facility: Annotated[
        Literal[
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
        ],
        Meta(description="Facility of the records."),
    ] = "local0"
    app_name: Annotated[
        str,
        Meta(
            pattern=r"^[!-~]{1,48}$",
            description="APP-NAME of the records.",
            extra={"accepted": "text of 1 to 48 printable ASCII characters without spaces"},
        ),
    ] = "vllm"
    sd_id: Annotated[
        str,
        Meta(
            pattern=r"^[!#-<>-\\^-~]{1,32}$",
            extra={
                "accepted": "text of 1 to 32 printable ASCII characters without spaces, "
                "quotes, '=' and ']'"
            },
            description="SD-ID of the structured data; the number is the one that RFC 5612 "
            "keeps for examples: put your own enterprise number there.",
        ),
    ] = "lmcache@32473"
    max_message_bytes: Annotated[
        int,
        Meta(
            ge=1024,
            description="Longer messages are sent in parts; rsyslog takes 8 KiB unless "
            "`maxMessageSize` says otherwise.",
        ),
    ] = 8000
    timeout: Annotated[
        float,
        Meta(gt=0, le=3600, description="Seconds in which a batch must have been confirmed."),
    ] = 10.0

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

    tenant: Annotated[Filled | None, Meta(description="Tenant, sent as `X-Scope-OrgID`.")] = None
    labels: Annotated[
        dict[_Name, str],
        Meta(description="Labels of all streams, besides those of the records; `job` is one."),
    ] = msgspec.field(default_factory=dict)
    structured_metadata: Annotated[
        bool,
        Meta(
            description="Whether logger, source, process id and file go along as structured "
            "metadata (Loki 3; in 2.9 and with a schema before v13 it is to be switched off)."
        ),
    ] = True
    gzip: Annotated[bool, Meta(description="Whether to compress what is sent.")] = True


class OtlpTarget(HttpTarget, kw_only=True):
    """An OpenTelemetry collector, or what takes OTLP logs over HTTP."""

    service_name: Annotated[Filled, Meta(description="Attribute `service.name`.")] = "vllm"
    attributes: Annotated[
        dict[Filled, str], Meta(description="More attributes of the resource.")
    ] = msgspec.field(default_factory=dict)
    gzip: Annotated[bool, Meta(description="Whether to compress what is sent.")] = True


class LogReporterSettings(msgspec.Struct, kw_only=True):
    """What the log reporter follows, and where it delivers."""

    files: Annotated[
        list[Filled] | Filled,
        Meta(
            extra={"accepted": "a path or pattern, or a list of them"},
            description="Files to follow: paths or patterns (`*`, `?`, `[…]`, `**`). `~` and "
            "`$VARS` are expanded; relative paths are relative to the engine's working "
            "directory. Names of rotated files do not match a pattern. If not set: the file "
            "that the engine's stdout and stderr go to.",
        ),
    ] = []
    syslog: Annotated[SyslogTarget | None, Meta(description="Deliver to syslog.")] = None
    loki: Annotated[LokiTarget | None, Meta(description="Deliver to Loki.")] = None
    otlp: Annotated[OtlpTarget | None, Meta(description="Deliver as OTLP logs over HTTP.")] = None
    level: Annotated[
        Literal["debug", "info", "warning", "error", "critical"],
        Meta(description="Less urgent records are left out."),
    ] = "debug"
    start: Annotated[
        Literal["beginning", "end"],
        Meta(description="Where to begin in files that are there when it first runs."),
    ] = "beginning"
    state_directory: Annotated[
        Filled | None,
        Meta(
            description="Where places are remembered; `~` and `$VARS` are expanded. If not "
            "set: `$XDG_STATE_HOME/lmcache-plugins/NAME`, or "
            "`~/.local/state/lmcache-plugins/NAME`, with the plugin's name."
        ),
    ] = None
    poll: Annotated[
        float, Meta(ge=0.05, le=60, description="Seconds between two looks at the files.")
    ] = 0.5
    batch_records: Annotated[
        int, Meta(ge=1, le=100_000, description="Records with which a batch is sent.")
    ] = 1000
    batch_bytes: Annotated[
        int, Meta(ge=1024, description="Characters of text with which a batch is sent.")
    ] = 524_288
    batch_age: Annotated[
        float, Meta(ge=0, le=300, description="Seconds after which a batch is sent in any case.")
    ] = 1.0
    max_line_bytes: Annotated[
        int, Meta(ge=256, le=65_536, description="Longer lines are cut, with a mark.")
    ] = 32_768
    max_record_bytes: Annotated[
        int,
        Meta(
            ge=256,
            description="A record of several lines that is longer is divided.",
        ),
    ] = 65_536
    record_wait: Annotated[
        float,
        Meta(ge=0, le=60, description="Seconds that a record waits for more lines of it."),
    ] = 1.0
