# SPDX-License-Identifier: Apache-2.0
"""Find out for ``lmcache-plugins check`` what an engine's processes would run."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lmcache_plugin_adapter.cli.console import ExitStatus
from lmcache_plugin_adapter.cli.hung_paths import patiently
from lmcache_plugin_adapter.cli.inputs import UsageError, engine_processes
from lmcache_plugin_adapter.cli.lmcache_yaml import is_yaml
from lmcache_plugin_adapter.configuration.effective import read_effective
from lmcache_plugin_adapter.configuration.locations import INSTALLED_PREFIX, is_installed
from lmcache_plugin_adapter.configuration.settings_table import PREFIX
from lmcache_plugin_adapter.contract.frozen import replaced
from lmcache_plugin_adapter.hosts.lmcache_server.config import server_identity
from lmcache_plugin_adapter.messages.problem import Problem, quoted
from lmcache_plugin_adapter.planner.discovery import scan
from lmcache_plugin_adapter.planner.file_names import PluginName, parse_name, runs_on
from lmcache_plugin_adapter.planner.file_report import report_files
from lmcache_plugin_adapter.planner.installed_packages import Packages
from lmcache_plugin_adapter.planner.plugin_environment import plugin_path
from lmcache_plugin_adapter.planner.plugin_files import PluginFiles

from .differences import BYPASS_NOTE, bypasses_lookup, with_differences
from .missing_libraries import with_missing_libraries
from .own_settings import own_settings_problems

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from lmcache_plugin_adapter.cli.lmcache_yaml import StandInConfig
    from lmcache_plugin_adapter.configuration.settings import Settings
    from lmcache_plugin_adapter.contract.identity import ProcessIdentity
    from lmcache_plugin_adapter.hosts.lmcache_server.config import ServerConfig
    from lmcache_plugin_adapter.messages.problem import Level
    from lmcache_plugin_adapter.planner.file_report import FileReport
    from lmcache_plugin_adapter.planner.installed_packages import EntryPoint

_GALLERY = "lmcache_plugin_adapter.gallery."

LEVELS: tuple[Level, ...] = ("error", "warning", "note")


@dataclass(frozen=True)
class EngineSize:
    """The engine that plugins are checked for.

    Attributes:
        world_size: Workers of one replica (TP x PP).
        dp_size: Data-parallel replicas.
        server: The host is LMCache's multiprocess server; the sizes mean nothing then.
    """

    world_size: int = 1
    dp_size: int = 1
    server: bool = False

    def processes(self, settings: Settings) -> tuple[ProcessIdentity, ...]:
        """Return the processes that run plugins, of all replicas that do."""
        if self.server:
            return (server_identity({}),)  # the planner applies filter_by_role
        replicas = self.dp_size if settings.data_parallel == "all" else 1
        return tuple(
            identity
            for replica in range(replicas)
            for identity in engine_processes(self.world_size, replica, self.dp_size)
        )


@dataclass(frozen=True)
class CheckReport:
    """The result of a check.

    Attributes:
        config: The configuration file.
        python: The interpreter that stands for the engine's.
        engine: The engine that the plugins are checked for.
        processes: The processes that run plugins.
        locations: The locations that were searched.
        files: The outcome for each entry of the locations, by path.
        problems: Problems of the configuration, the settings and the locations.
    """

    config: str
    python: str
    engine: EngineSize
    processes: tuple[ProcessIdentity, ...]
    locations: tuple[str, ...]
    files: tuple[FileReport, ...]
    problems: tuple[Problem, ...]

    @property
    def running(self) -> list[FileReport]:
        """The files that run as plugins."""
        return [file for file in self.files if file.status == "runs"]

    def count(self, level: Level) -> int:
        """Return the number of problems of a level, those of files included."""
        everywhere = (self.problems, *(file.problems for file in self.files))
        return sum(problem.level == level for problems in everywhere for problem in problems)

    def status(self, strict: bool) -> int:
        """Return the exit status; ``strict``: warnings count as errors."""
        failed = self.count("error") or (strict and self.count("warning"))
        return ExitStatus.FAILED if failed else ExitStatus.OK


def merged(reports: Sequence[CheckReport]) -> CheckReport:
    """Return one report of the same processes with all locations."""
    return replace(
        reports[0],
        locations=tuple(one for report in reports for one in report.locations),
        files=tuple(one for report in reports for one in report.files),
        problems=tuple(dict.fromkeys(one for report in reports for one in report.problems)),
    )


def make_report(engine: EngineSize, config: StandInConfig | ServerConfig) -> CheckReport:
    """Check what the engine's processes would run.

    Raises:
        UsageError: The search for plugins failed.
    """
    read = read_effective(config.extra_config, config.runtime_plugin_locations, os.environ)
    settings, locations = read.settings, read.locations
    problems = [*config.problems, *read.settings_problems, *read.location_problems]
    if not settings.enabled:
        text = f"'{PREFIX}.enabled' is false: an engine leaves plugins to LMCache's launcher"
        problems.append(Problem("note", text))
    if not locations:
        problems.append(Problem("note", "no location is configured: there are no plugins"))
    processes = engine.processes(settings)
    problems += _log_directories(settings)

    def search(
        progress: Callable[[str], None], skip: frozenset[str]
    ) -> tuple[tuple[FileReport, ...], list[Problem]]:
        searched = [location for location in locations if location not in skip]
        entries = scan(locations, progress, skip, sys.path)
        path = plugin_path(sys.executable, os.environ.get("PATH"))
        plugin_files = PluginFiles(entries, settings, sys.executable, path, progress)
        offers = _offers(searched, progress)
        unused = _unused_plugins(offers, searched, processes)
        found = [*entries.problems, *plugin_files.unknown_settings(), *unused]
        if locations and not skip and not any(_exists(one, progress) for one in locations):
            found.append(Problem("error", "no location exists: there is nothing to run"))
        reports = [
            _with_counterpart(file, offers, processes)
            for file in report_files(processes, plugin_files)
        ]
        return without_companion_notes(reports, config.source), found

    try:
        (files, found), hung = patiently(search)
    except RuntimeError as error:
        raise UsageError(str(error)) from error
    problems += [
        Problem("warning", f"Location {quoted(location)} does not answer: it was not searched")
        for location in hung
    ]
    found_files, files = files, with_missing_libraries(files, config.to_json())
    complete = [file for file, before in zip(files, found_files, strict=True) if file is before]
    if not engine.server and settings.filter_by_role:
        bypasses = bypasses_lookup(config.to_json())
        problems += [Problem("note", BYPASS_NOTE)] if bypasses else []
        files = with_differences(files, processes, has_engine=bypasses)
    problems += own_settings_problems(complete, config.extra_config)
    return CheckReport(
        config.source,
        sys.executable,
        engine,
        processes,
        tuple(locations),
        files,
        tuple(dict.fromkeys([*problems, *found])),
    )


def without_companion_notes(files: Sequence[FileReport], config: str) -> tuple[FileReport, ...]:
    """Return the reports without notes on files that stand beside plugins on purpose.

    These are configurations, and directories whose names keep them from being searched, such as
    the ``_tests`` that ``new`` creates.

    Args:
        files: The reports of all entries.
        config: The configuration file.
    """
    own = os.path.realpath(config)
    return tuple(
        replaced(file, problems=())
        if file.status == "ignored"
        and (os.path.realpath(file.path) == own or _is_companion(file.path))
        else file
        for file in files
    )


def _is_companion(path: str) -> bool:
    if is_yaml(path):
        return os.path.isfile(path)
    return os.path.basename(path).startswith(("_", ".")) and os.path.isdir(path)


def _log_directories(settings: Settings) -> Iterator[Problem]:
    """Warn about directories for log files that this user cannot write to."""
    everything = (settings.defaults, *settings.plugins.values())
    for directory in dict.fromkeys(one.log.directory for one in everything if one.log):
        path = os.path.abspath(directory)
        while not os.path.lexists(path):
            path = os.path.dirname(path)  # the supervisor creates the missing ones
        if not os.path.isdir(path):
            reason = f"{quoted(path)} is no directory"
        elif not os.access(path, os.W_OK | os.X_OK):
            reason = f"{quoted(path)} is not writable for user {os.geteuid()}"
        else:
            continue
        yield Problem("warning", f"Cannot write log files to {quoted(directory)}: {reason}")


def _exists(location: str, progress: Callable[[str], None]) -> bool:
    progress(location)
    return is_installed(location) or os.path.exists(location)


def _offers(locations: Iterable[str], progress: Callable[[str], None]) -> Mapping[str, EntryPoint]:
    """Return what packages offer as plugins, if a location names an installed plugin."""
    named = [location for location in locations if is_installed(location)]
    return Packages(sys.path, lambda: progress(named[0])).entry_points if named else {}


def _with_counterpart(
    file: FileReport, offers: Mapping[str, EntryPoint], processes: Sequence[ProcessIdentity]
) -> FileReport:
    """Return the report; that of other processes' plugin names the same plugin for these."""
    if file.status != "elsewhere" or file.installed is None:
        return file
    same = [name for name, offer in offers.items() if offer.value == file.installed.value]
    here = sorted(quoted(INSTALLED_PREFIX + name) for name in same if _runs(name, processes))
    if not here:
        return file
    problem, *more = file.problems
    text = f"{problem.text}; here it is {' or '.join(here)}"
    return replaced(file, problems=(Problem(problem.level, text), *more))


def _unused_plugins(
    offers: Mapping[str, EntryPoint],
    locations: Iterable[str],
    processes: Sequence[ProcessIdentity],
) -> Iterator[Problem]:
    """Note the plugins of other packages that no location names, if the locations name any."""
    named = {one.removeprefix(INSTALLED_PREFIX) for one in locations if is_installed(one)}
    others = [
        f"{quoted(INSTALLED_PREFIX + name)} ({offers[name].package})"
        for name in sorted(offers.keys() - named)
        if not offers[name].value.startswith(_GALLERY) and _runs(name, processes)
    ]
    if others:
        yield Problem("note", f"installed, and named by no location: {', '.join(others)}")


def _runs(name: str, processes: Iterable[ProcessIdentity]) -> bool:
    """Return whether one of the processes runs the installed plugin of this name."""
    parsed = parse_name(name, is_location=True)
    return isinstance(parsed, PluginName) and any(runs_on(parsed, one) for one in processes)
