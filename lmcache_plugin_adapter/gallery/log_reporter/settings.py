# SPDX-License-Identifier: Apache-2.0
"""The settings of the log reporter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import msgspec
from msgspec import Meta

from lmcache_plugin_adapter.gallery.http_client.address import Filled
from lmcache_plugin_adapter.gallery.http_client.target import HttpTarget
from lmcache_plugin_adapter.gallery.log_reporter.reading.json_records import JsonFields
from lmcache_plugin_adapter.kit.settings.quantities import Duration, Size

FACILITIES = {"user": 1, "daemon": 3, **{f"local{number}": 16 + number for number in range(8)}}
"""The numbers of RFC 5424."""

_Port = Annotated[int, Meta(ge=1, le=65535)]
if TYPE_CHECKING:
    _Facility = str
else:
    _Facility = Literal[tuple(FACILITIES)]
_Name = Annotated[str, Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


_LOKI_LABELS = frozenset(
    {"job", "host", "role", "dp_rank", "worker_id", "filename", "level", "process"}
)
"""The labels that a stream has on its own."""


class SyslogTarget(msgspec.Struct, kw_only=True):
    """A syslog server: RFC 5424 over TCP, TLS or UDP, or the local daemon."""

    host: Filled | None = None
    """Name or address of the server. Required, except with `protocol: local`."""
    port: _Port | None = None
    """Port. Default: 514, with `tls` 6514."""
    protocol: Literal["tcp", "udp", "local"] = "tcp"
    """`udp` and `local` confirm nothing: what the network or the daemon loses is lost. `local` is
    the daemon, or journald, at `socket`."""
    socket: Filled = "/dev/log"
    """Socket of the local daemon."""
    tls: bool = False
    """Whether to use TLS (RFC 5425)."""
    ca_file: Filled | None = None
    """Certificates (PEM) that may sign the server's certificate. Default: those of the system."""
    cert_file: Filled | None = None
    """Certificate (PEM) that the client presents."""
    key_file: Filled | None = None
    """Key of `cert_file`, if that file does not contain it."""
    server_name: Filled | None = None
    """Name that the server's certificate must have. Default: `host`."""
    verify: bool = True
    """`false` accepts any certificate of the server. For tests only."""
    facility: _Facility = "local0"
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
    """SD-ID of the structured data. RFC 5612 reserves the number for examples: use your own
    enterprise number."""
    max_message_bytes: Annotated[Size, Meta(ge=1024)] = 8000
    """Longer messages are sent in parts. rsyslog accepts 8 KiB unless `maxMessageSize` is set."""
    timeout: Annotated[Duration, Meta(gt=0, le=3600)] = 10.0
    """Seconds in which the server must confirm a batch."""

    def __post_init__(self) -> None:
        """Refuse settings that contradict the protocol."""
        if self.host is None and self.protocol != "local":
            raise ValueError("host is missing; without a server, set protocol: local")
        if self.tls and self.protocol != "tcp":
            raise ValueError(f"tls needs protocol: tcp, found {self.protocol}")
        if self.key_file is not None and self.cert_file is None:
            raise ValueError("key_file needs cert_file")
        if not self.tls:
            for key in ("ca_file", "cert_file", "server_name"):
                if getattr(self, key) is not None:
                    raise ValueError(f"{key} needs tls: true")


class JournaldSource(msgspec.Struct, kw_only=True):
    """Entries of the journal that match any of these, as `journalctl` reads them."""

    units: list[Filled] = []
    """Units of systemd, such as `vllm`, with systemd's own entries on them and their core dumps."""
    identifiers: list[Filled] = []
    """Programs, as `journalctl -t` names them."""
    kernel: bool = False
    """Also the kernel's records, such as those of its OOM killer."""
    directory: Filled | None = None
    """Directory of the journal, as with `journalctl --directory`. Default: the machine's."""

    def __post_init__(self) -> None:
        """Refuse to read everything by mistake."""
        if not (self.units or self.identifiers or self.kernel):
            raise ValueError("give units, identifiers or kernel: true")


class LokiTarget(HttpTarget, kw_only=True):
    """Grafana Loki, or another server with its push API (`/loki/api/v1/push`)."""

    example: ClassVar[str] = "http://loki:3100"

    tenant: Filled | None = None
    """Tenant, sent as `X-Scope-OrgID`."""
    labels: dict[_Name, str] = msgspec.field(default_factory=dict)
    """Labels of all streams, in addition to those of the records, such as `job`."""
    max_labels: Annotated[int, Meta(ge=8, le=1000)] = 15
    """The most labels of a stream that Loki accepts (`max_label_names_per_series`). Loki refuses
    every record with more, so more are an error at the start."""
    structured_metadata: bool = True
    """Whether to send logger, source, process id and file as structured metadata (Loki 3). Set
    `false` for Loki 2.9 and for a schema before v13."""
    gzip: bool = True
    """Whether to compress requests."""

    def __post_init__(self) -> None:
        """Refuse labels that would lose every record."""
        super().__post_init__()
        number = len(_LOKI_LABELS.union(self.labels))
        if number > self.max_labels:
            raise ValueError(
                f"a stream would have {number} labels ({', '.join(sorted(_LOKI_LABELS))} and those "
                f"in labels); Loki accepts {self.max_labels} (max_labels)"
            )


class OtlpTarget(HttpTarget, kw_only=True):
    """An OpenTelemetry collector, or another receiver of OTLP logs over HTTP (`/v1/logs`)."""

    example: ClassVar[str] = "http://collector:4318"

    service_name: Filled = "vllm"
    """Attribute `service.name`."""
    attributes: dict[Filled, str] = msgspec.field(default_factory=dict)
    """More attributes of the resource."""
    gzip: bool = True
    """Whether to compress requests."""


class LogReporterSettings(msgspec.Struct, kw_only=True):
    """All settings of the log reporter."""

    files: Annotated[
        list[Filled] | Filled, Meta(extra={"accepted": "a path or pattern, or a list of them"})
    ] = []
    """Files to follow: paths or patterns (`*`, `?`, `[…]`, `**`), relative to the engine's working
    directory. `~` and `$VARS` are expanded. Names of rotated files do not match a pattern.
    Default: the file that the engine's stdout and stderr write to."""
    journald: JournaldSource | None = None
    """Read the journal, instead of files or besides those in `files`."""
    target: Literal["console"] | None = None
    """`console` prints what would be delivered, and delivers nothing."""
    syslog: SyslogTarget | None = None
    """Deliver to syslog."""
    loki: LokiTarget | None = None
    """Deliver to Loki."""
    otlp: OtlpTarget | None = None
    """Deliver as OTLP logs over HTTP."""
    level: Literal["debug", "info", "warning", "error", "critical"] = "debug"
    """Least urgent level to deliver."""
    drop: list[Filled] = []
    """Regular expressions of records to leave out. They are searched in the whole text."""
    redact: list[Filled] = []
    """Regular expressions of text to hide. If a pattern has groups, only what they match is
    hidden."""
    redact_with: Annotated[str, Meta(max_length=100)] = "***"
    """Text in the place of hidden text."""
    json_fields: JsonFields = JsonFields()
    """More keys for records in JSON."""
    start: Literal["beginning", "end"] = "beginning"
    """Where to begin in files that exist at the first start."""
    state_directory: Filled | None = None
    """Directory for the positions. `~` and `$VARS` are expanded. Default:
    `$XDG_STATE_HOME/lmcache-plugins/NAME`, or `~/.local/state/lmcache-plugins/NAME`, with the
    plugin's name."""
    poll: Annotated[Duration, Meta(ge=0.05, le=60)] = 0.5
    """Seconds between two reads of the files."""
    batch_records: Annotated[int, Meta(ge=1, le=100_000)] = 1000
    """Number of records that completes a batch."""
    batch_bytes: Annotated[Size, Meta(ge=1024)] = 524_288
    """Number of characters that completes a batch."""
    flush_interval: Annotated[Duration, Meta(ge=0, le=300)] = 1.0
    """Seconds after which a batch is sent, complete or not."""
    max_line_bytes: Annotated[Size, Meta(ge=256, le=65_536)] = 32_768
    """Longer lines are cut, with a mark."""
    max_record_bytes: Annotated[Size, Meta(ge=256)] = 65_536
    """Longer records of several lines are split."""
    multiline_timeout: Annotated[Duration, Meta(ge=0, le=60)] = 1.0
    """Seconds for which a record waits for more lines."""

    def why_unusable(self, key: str) -> str:
        """Return why the plugin cannot work with these settings, found at ``key``, or nothing."""
        if self.target or self.syslog or self.loki or self.otlp:
            return ""
        return (
            f"no target: set 'syslog', 'loki' or 'otlp' in '{key}', or target: console; "
            "nothing is delivered"
        )
