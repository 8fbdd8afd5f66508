# SPDX-License-Identifier: Apache-2.0
"""The log reporter: read the settings, run one thread for each target, end in time."""

from __future__ import annotations

import glob
import os
import stat
import threading
from typing import TYPE_CHECKING

from lmcache_plugin_adapter import kit
from lmcache_plugin_adapter.contract.plugin_states import NO_RESTART_CODE
from lmcache_plugin_adapter.gallery.log_reporter.reading.assembling import Bounds
from lmcache_plugin_adapter.gallery.log_reporter.reading.files import FollowedFiles
from lmcache_plugin_adapter.gallery.log_reporter.reading.parsing import Parser
from lmcache_plugin_adapter.gallery.log_reporter.reading.positions import (
    Positions,
    StateError,
    name_for,
)
from lmcache_plugin_adapter.gallery.log_reporter.reading.records import Level
from lmcache_plugin_adapter.gallery.log_reporter.targets.console import Console, own_lines
from lmcache_plugin_adapter.gallery.log_reporter.targets.origin import Origin
from lmcache_plugin_adapter.gallery.state_file import default_directory

from .delivery import Batching, LogDelivery, margin_of
from .filtering import RecordFilter, compiled
from .journal import KEY, Journal
from .settings import LogReporterSettings
from .sources import Sources

if TYPE_CHECKING:
    from collections.abc import Callable

    from lmcache_plugin_adapter.gallery.log_reporter.reading.tailed_file import FilePosition
    from lmcache_plugin_adapter.gallery.log_reporter.targets.target import LogTarget

_PATIENCE = 10.0
"""Seconds after which a pattern without a matching file is logged."""

_JOIN = 0.1
"""Seconds between two checks whether the threads have ended."""


def report(ctx: kit.Context, stop: kit.Stop) -> int:
    """Deliver until the plugin is to stop; return the exit code."""
    settings = ctx.settings(LogReporterSettings)
    origin = Origin(ctx.host, ctx.role.lower(), ctx.worker_id, ctx.dp_rank, ctx.name)
    targets = make_targets(settings, origin)
    key = ctx.settings_key
    if why := settings.why_unusable(key):
        raise kit.SettingsError(why)
    patterns = expand(settings.files)
    if not patterns and settings.journald is None:
        patterns = engine_files(ctx.engine_pid)
    if not patterns and settings.journald is None:
        raise kit.SettingsError(
            f"no files: set '{key}.files' or '{key}.journald'; the engine's stdout and stderr do "
            "not go to a file"
        )
    # Without the replica: of replicas with the same files, one follows them and the others wait.
    label = ctx.label.removeprefix(f"dp {ctx.dp_rank} ")
    directory = os.path.join(
        expand_one(settings.state_directory)
        if settings.state_directory
        else default_directory(os.environ, ctx.name),
        name_for(label, patterns or [f"/{KEY}"], os.getcwd()),
    )
    followed = [*patterns, *(["the journal"] if settings.journald is not None else [])]
    kit.info(f"Follows {', '.join(followed)}; stores its positions in {directory}")
    for name, target in targets.items():
        kit.info(f"Delivers to {target.name} ({name})")
    drop = compiled(f"{key}.drop", settings.drop, "it has no effect")
    redact = compiled(f"{key}.redact", settings.redact, "nothing is delivered without it")
    if len(redact) < len(settings.redact):
        return NO_RESTART_CODE
    own = [own_lines(ctx.name)] if settings.target == "console" else []
    margin = margin_of(stop) / 2
    failed = threading.Event()
    threads = [
        threading.Thread(
            target=_guarded,
            args=(
                *(_follow, failed, stop, name, target, patterns, settings, directory),
                RecordFilter(drop, redact, settings.redact_with, own),
            ),
            name=name,
            daemon=True,
        )
        for name, target in targets.items()
    ]
    for thread in threads:
        thread.start()
    if not stop.wait(_PATIENCE):
        for pattern in patterns:
            if not glob.glob(pattern):
                kit.warning(f"No file matches '{pattern}'; it is followed once it exists")
    while not stop.wait(3600):
        pass
    while any(thread.is_alive() for thread in threads) and stop.remaining() > margin:
        for thread in threads:
            thread.join(_JOIN)
    for thread in threads:
        if thread.is_alive():
            kit.warning(
                f"{targets[thread.name].name}: stopped while a batch was in flight; unconfirmed "
                "records are delivered at the next start"
            )
    return 1 if failed.is_set() else 0


def make_targets(settings: LogReporterSettings, origin: Origin) -> dict[str, LogTarget]:
    """Return the configured targets by their keys; import only their libraries."""
    if settings.target == "console":
        return {"console": Console(origin)}
    targets: dict[str, LogTarget] = {}
    if settings.syslog is not None and settings.syslog.protocol == "tcp":
        from lmcache_plugin_adapter.gallery.log_reporter.targets.syslog import Syslog

        targets["syslog"] = Syslog(settings.syslog, origin)
    elif settings.syslog is not None:
        from lmcache_plugin_adapter.gallery.log_reporter.targets.syslog_datagram import (
            DatagramSyslog,
        )

        targets["syslog"] = DatagramSyslog(settings.syslog, origin)
    if settings.loki is not None:
        from lmcache_plugin_adapter.gallery.log_reporter.targets.loki import Loki

        targets["loki"] = Loki(settings.loki, origin)
    if settings.otlp is not None:
        from lmcache_plugin_adapter.gallery.log_reporter.targets.otlp import OtlpLogs

        targets["otlp"] = OtlpLogs(settings.otlp, origin)
    return targets


def expand(files: list[str] | str) -> list[str]:
    """Return paths with ``~`` and ``$VARS`` expanded; log the variables that are not set."""
    return [expand_one(one) for one in ([files] if isinstance(files, str) else files)]


def expand_one(path: str) -> str:
    """Return a path with ``~`` and ``$VARS`` expanded."""
    expanded = os.path.expandvars(os.path.expanduser(path))
    if "$" in expanded:
        kit.warning(f"A variable in {path!r} is not set; it is used as written")
    return expanded


def engine_files(pid: int | None) -> list[str]:
    """Return the files that an engine's stdout and stderr write to, as patterns.

    Args:
        pid: The engine process; None: unknown.
    """
    found: dict[str, None] = {}
    for descriptor in (1, 2) if pid is not None else ():
        link = f"/proc/{pid}/fd/{descriptor}"
        try:
            path = os.readlink(link)
            if stat.S_ISREG(os.stat(link).st_mode) and os.path.lexists(path):
                found[glob.escape(path)] = None
        except OSError:
            continue  # not permitted, or gone
    return list(found)


def _guarded(
    follow: Callable[..., None], failed: threading.Event, stop: kit.Stop, *rest: object
) -> None:
    """Run a thread; an exception in it stops the plugin, which the supervisor restarts."""
    try:
        follow(stop, *rest)
    except Exception as error:  # noqa: BLE001 - the last chance to log it
        kit.error(f"Failed: {type(error).__name__}: {error}")
        import traceback  # late: as a rule, nothing fails

        kit.debug(traceback.format_exc())
        failed.set()
        stop.set()


def _follow(
    stop: kit.Stop,
    name: str,
    target: LogTarget,
    patterns: list[str],
    settings: LogReporterSettings,
    directory: str,
    filtering: RecordFilter,
) -> None:
    state, positions = _load_positions(stop, name, target, directory)
    if stop.is_set() and positions is None and state is None:
        return

    def report(text: str, _: int) -> None:
        kit.warning(f"{target.name}: {text}")

    parser = Parser(os.environ.get("VLLM_LOGGING_PREFIX", ""), settings.json_fields)
    known = dict(positions or {})
    journal_position = known.pop(KEY, None)
    bounds = Bounds(
        settings.max_record_bytes, settings.multiline_timeout, Level[settings.level.upper()]
    )
    files = FollowedFiles(
        patterns,
        settings.max_line_bytes,
        parser,
        bounds,
        None if positions is None else known,
        from_end=settings.start == "end",
        report=report,
    )
    sources: list[FollowedFiles | Journal] = [files]
    if settings.journald is not None:
        begins = settings.start == "end" and positions is None
        position = journal_position[0] if journal_position else None
        sources.append(
            Journal(settings.journald, parser, bounds, position, from_end=begins, report=report)
        )
    batching = Batching(
        settings.batch_records, settings.batch_bytes, settings.flush_interval, settings.poll
    )
    LogDelivery(target, Sources(sources), state, batching, filtering, stop).run()


def _load_positions(
    stop: kit.Stop, name: str, target: LogTarget, directory: str
) -> tuple[Positions | None, dict[str, list[FilePosition]] | None]:
    """Return the state file and its positions; wait while another log reporter holds it."""
    try:
        state = Positions(directory, name)
        logged = False
        while not state.try_lock():
            if not logged:
                kit.warning(
                    f"{target.name}: another log reporter uses {state.path!r}; this one waits "
                    "until it exits (to run both, give each its own 'state_directory')"
                )
                logged = True
            if stop.wait(1):
                return None, None
    except StateError as error:
        kit.warning(
            f"{target.name}: no position will be stored: {error}; after a restart everything "
            "is delivered again (set 'state_directory')"
        )
        return None, None
    try:
        return state, state.load()
    except StateError as error:
        kit.warning(f"{target.name}: {error}; starting from scratch")
        return state, None
