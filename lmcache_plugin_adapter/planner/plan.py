# SPDX-License-Identifier: Apache-2.0
"""Decide which plugins one process runs, under which names, with which commands and settings."""

from __future__ import annotations

import os

from lmcache_plugin_adapter.configuration.locations import INSTALLED_PREFIX
from lmcache_plugin_adapter.contract.frozen import frozen
from lmcache_plugin_adapter.contract.planned_plugin import PlannedPlugin
from lmcache_plugin_adapter.messages.problem import Problem, quoted
from lmcache_plugin_adapter.messages.wording import capitalized

from .file_names import PluginName, name_advice, name_warning, runs_on
from .plugin_environment import hidden_variables
from .selection import why_left_out

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lmcache_plugin_adapter.contract.identity import ProcessIdentity

    from .entry import Entry
    from .plugin_files import PluginFiles

_MAX_NAME_WARNINGS = 10
"""Limit for warnings about single misnamed files in the log; ``check`` lists all of them."""


@frozen
class Plan:
    """The plugins that one process runs.

    Attributes:
        plugins: The plugins to run and the refused ones, ordered by path.
        problems: Problems with locations, names and settings, and plugins that
            run differently than their files specify.
    """

    plugins: tuple[PlannedPlugin, ...]
    problems: tuple[Problem, ...]


def make_plan(identity: ProcessIdentity, files: PluginFiles) -> Plan:
    """Decide what a process runs.

    Args:
        identity: The process.
        files: What the locations hold.

    Returns:
        The same plan for the same files. Never raises, except what the
        ``progress`` of ``files`` raises.
    """
    enabled = [entry for entry in files.select(identity) if files.settings_of(entry).enabled]
    # One location after another, so that the progress names the one that hangs.
    for entry in sorted(enabled, key=lambda entry: entry.location):
        files.inspect(entry)
    problems = [*files.problems, *_broken_entries(identity, files)]
    for entry in enabled:
        name, inspection = files.names[entry.path], files.inspect(entry)
        problems += [Problem("warning", capitalized(text)) for text in inspection.exposures]
        plugin = f"Plugin {quoted(name)}"
        problems += [Problem("error", f"{plugin}: {text}") for text in inspection.errors]
        problems += [Problem("warning", f"{plugin}: {text}") for text in inspection.warnings]
    problems += _name_warnings(identity, files)
    problems += files.unknown_settings()
    plugins = tuple(_planned(entry, files) for entry in enabled)
    return Plan(plugins, tuple(dict.fromkeys(problems)))


def _planned(entry: Entry, files: PluginFiles) -> PlannedPlugin:
    inspection, settings = files.inspect(entry), files.settings_of(entry)
    backoff, rate, log = settings.backoff, settings.rate_limit, settings.log
    file_name = os.path.basename(entry.path)
    package = entry.installed
    account = inspection.account
    variables = {**({} if account is None else account.environment), **settings.env}
    return PlannedPlugin(
        names=tuple(dict.fromkeys((files.names[entry.path], file_name, entry.path))),
        path=entry.path,
        key=entry.key,
        file=file_name.removeprefix(INSTALLED_PREFIX),
        signature=entry.signature,
        package=None if package is None else (package.project, package.version),
        argv=inspection.argv,
        own_args=len(settings.args) if inspection.argv else 0,
        environment={os.fsencode(k): os.fsencode(v) for k, v in variables.items()},
        refused=inspection.refused,
        restart=settings.restart,
        backoff=(backoff.initial, backoff.max, backoff.reset_after),
        stop_grace=settings.stop_grace,
        every=settings.every,
        jitter=settings.jitter,
        timeout=settings.timeout,
        notify=settings.notify,
        ready_timeout=settings.ready_timeout,
        watchdog=settings.watchdog,
        max_line_bytes=settings.max_line_bytes,
        log_buffer_bytes=settings.log_buffer_bytes,
        rate_limit=None if rate is None else (rate.lines, rate.per, rate.burst),
        log=None
        if log is None or not inspection.keeps_log
        else (log.directory, log.max_bytes, log.files),
        relay=settings.relay,
        leftovers=settings.leftovers,
        nice=settings.nice,
        oom_score_adj=settings.oom_score_adj,
        memory_max=files.limit(entry, "memory_max"),
        max_processes=files.limit(entry, "max_processes"),
        credentials=None if account is None else (account.uid, account.gid, account.groups),
        no_new_privs=settings.no_new_privs,
        hidden=tuple(
            os.fsencode(name)
            for name in hidden_variables(settings.env_hide, os.environ)
            if name not in variables
        ),
        checked=inspection.checked,
        shares=inspection.shares,
    )


def _broken_entries(identity: ProcessIdentity, files: PluginFiles) -> list[Problem]:
    """Report entries with a plugin's name that are not files."""
    identity = files.filtered(identity)
    return [
        Problem(
            "error" if entry.kind == "broken" else "note",
            f"Cannot run {quoted(entry.path)}: {entry.trouble}",
        )
        for entry in files.entries
        if entry.kind in ("broken", "special")
        and isinstance(entry.name, PluginName)
        and runs_on(entry.name, identity)
    ]


def _name_warnings(identity: ProcessIdentity, files: PluginFiles) -> list[Problem]:
    """Warn about files that were probably meant to run; the first ones one by one."""
    unfiltered = files.filtered(identity).role is None
    if unfiltered and files.filters_by_role:
        return []
    plugins: set[object] = {entry.key for entry in files.entries if entry.is_plugin}
    texts = []
    for entry in files.entries:
        text = None
        if entry.kind == "file":
            text = why_left_out(entry) if unfiltered else _name_warning(entry)
        if text is not None and (entry.is_plugin or entry.key not in plugins):
            texts.append(f"{quoted(entry.path)} does not run: {text}")
    left = len(texts) - _MAX_NAME_WARNINGS
    if left > 0:
        more = (
            "1 more file does not run because of its name"
            if left == 1
            else f"{left:,} more files do not run because of their names"
        )
        texts[_MAX_NAME_WARNINGS:] = [f"{more}: 'lmcache-plugins check' lists all"]
    return [Problem("warning", text) for text in texts]


def _name_warning(entry: Entry) -> str | None:
    name = entry.name
    if isinstance(name, PluginName):
        return name_warning(name, []) if name.never_runs else None
    if name.kind == "near-miss" or name.runs_in_lmcache or entry.is_location:
        return name_advice(name, installed=entry.installed is not None)
    return None
