"""``lmcache-plugins check``: what would run where and how, what would not, and how to mend it."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lmcache_plugin_adapter.cli.console import fail, say
from lmcache_plugin_adapter.cli.hung_paths import patiently
from lmcache_plugin_adapter.cli.inputs import UsageError, engine_processes, read_config, read_server
from lmcache_plugin_adapter.configuration.effective import read_effective
from lmcache_plugin_adapter.configuration.locations import INSTALLED_PREFIX, is_installed
from lmcache_plugin_adapter.configuration.settings_table import PREFIX
from lmcache_plugin_adapter.contract.frozen import replaced
from lmcache_plugin_adapter.contract.identity import Role
from lmcache_plugin_adapter.hosts.lmcache_server.config import server_identity
from lmcache_plugin_adapter.messages.problem import Problem, quoted
from lmcache_plugin_adapter.planner.discovery import scan
from lmcache_plugin_adapter.planner.file_report import report_files
from lmcache_plugin_adapter.planner.installed_packages import Packages
from lmcache_plugin_adapter.planner.plugin_environment import plugin_path
from lmcache_plugin_adapter.planner.plugin_files import PluginFiles

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from lmcache_plugin_adapter.cli.lmcache_yaml import StandInConfig
    from lmcache_plugin_adapter.configuration.settings import Settings
    from lmcache_plugin_adapter.contract.identity import ProcessIdentity
    from lmcache_plugin_adapter.hosts.lmcache_server.config import ServerConfig
    from lmcache_plugin_adapter.messages.problem import Level
    from lmcache_plugin_adapter.planner.file_report import FileReport

LEVELS: tuple[Level, ...] = ("error", "warning", "note")


@dataclass(frozen=True)
class Request:
    """What the command line asks for.

    Attributes:
        config: Path of ``lmcache.yaml``, if given.
        world_size: Workers of one replica (TP x PP).
        dp_size: Data-parallel replicas.
        strict: Warnings count like errors.
        as_json: For machines.
        server: The host is LMCache's multiprocess server.
    """

    config: str | None
    world_size: int = 1
    dp_size: int = 1
    strict: bool = False
    as_json: bool = False
    server: bool = False


@dataclass(frozen=True)
class Report:
    """What was found.

    Attributes:
        config: The configuration's file.
        python: The interpreter that stands for the engine's.
        world_size: Workers of one replica.
        dp_size: Data-parallel replicas.
        fleet: The processes that run plugins.
        locations: Where plugins were looked for.
        files: What becomes of each entry of the locations, by path.
        problems: What is wrong with configuration, settings and locations.
        server: The host is LMCache's multiprocess server.
    """

    config: str
    python: str
    world_size: int
    dp_size: int
    fleet: tuple[ProcessIdentity, ...]
    locations: tuple[str, ...]
    files: tuple[FileReport, ...]
    problems: tuple[Problem, ...]
    server: bool = False

    def count(self, level: Level) -> int:
        """Return how many problems of a level there are, those of files included."""
        everywhere = (self.problems, *(file.problems for file in self.files))
        return sum(problem.level == level for problems in everywhere for problem in problems)

    def status(self, strict: bool) -> int:
        """Return the exit status.

        Args:
            strict: Warnings count like errors.
        """
        return 1 if self.count("error") or (strict and self.count("warning")) else 0


def check(request: Request) -> int:
    """Print what would run and what would not; return the exit status."""
    try:
        path = request.config
        report = examine(request, read_server(path) if request.server else read_config(path))
    except UsageError as error:
        return fail(error)
    if request.as_json:
        from .json_document import to_json

        say(to_json(report, request.strict))
    else:
        from .table import to_table

        say(to_table(report))
    return report.status(request.strict)


def examine(request: Request, config: StandInConfig | ServerConfig) -> Report:
    """Find out what the engine's processes would run.

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
    fleet = processes(request, settings)

    def look(
        progress: Callable[[str], None], skip: frozenset[str]
    ) -> tuple[tuple[FileReport, ...], list[Problem]]:
        asked = [location for location in locations if location not in skip]
        entries = scan(locations, progress, skip, sys.path)
        path = plugin_path(sys.executable, os.environ.get("PATH"))
        plugin_files = PluginFiles(entries, settings, sys.executable, path, progress)
        found = [*entries.problems, *plugin_files.unknown_settings(), *unnamed(asked, progress)]
        return report_files(fleet, plugin_files), found

    try:
        (files, found), hung = patiently(look)
    except RuntimeError as error:
        raise UsageError(str(error)) from error
    problems += [
        Problem("warning", f"Location {quoted(location)} does not answer: it was not searched")
        for location in hung
    ]
    return Report(
        config.source,
        sys.executable,
        request.world_size,
        request.dp_size,
        tuple(fleet),
        tuple(locations),
        files,
        tuple(dict.fromkeys([*problems, *found])),
        request.server,
    )


def unnamed(locations: Iterable[str], progress: Callable[[str], None]) -> Iterator[Problem]:
    """Say to who runs installed plugins which others there are."""
    asked = [one for one in locations if is_installed(one)]
    if not asked:
        return
    named = {one.removeprefix(INSTALLED_PREFIX) for one in asked}
    offers = Packages(sys.path, lambda: progress(asked[0])).entry_points
    others = [
        f"{quoted(INSTALLED_PREFIX + name)} ({offers[name].package})"
        for name in sorted(offers.keys() - named)
    ]
    if others:
        yield Problem("note", f"installed, and named by no location: {', '.join(others)}")


def processes(request: Request, settings: Settings) -> list[ProcessIdentity]:
    """Return the processes that run plugins, of all replicas that do."""
    if request.server:
        return [server_identity({})]  # filter_by_role is the planner's affair
    replicas = request.dp_size if settings.data_parallel == "all" else 1
    return [
        identity
        for replica in range(replicas)
        for identity in engine_processes(request.world_size, replica, request.dp_size)
    ]


def in_words(identities: Iterable[ProcessIdentity]) -> str:
    """Say which processes these are: ``scheduler, workers 0-3``.

    Replicas that are alike are said once: ``dp 0-1: scheduler, worker 0``.
    """
    replicas: dict[int, list[ProcessIdentity]] = {}
    dp_size = 1
    for identity in identities:
        replicas.setdefault(identity.dp_rank, []).append(identity)
        dp_size = identity.dp_size
    alike: dict[str, list[int]] = {}
    for rank, members in replicas.items():
        alike.setdefault(_replica_in_words(members), []).append(rank)
    if dp_size == 1:
        return "".join(alike)
    return "; ".join(f"dp {_ranges(ranks)}: {words}" for words, ranks in alike.items())


def _replica_in_words(members: list[ProcessIdentity]) -> str:
    words = [replaced(one, dp_size=1).label for one in members if one.role is not Role.WORKER]
    ranks = [one.worker_id for one in members if one.role is Role.WORKER]
    if ranks:
        words.append(f"{'worker' if len(ranks) == 1 else 'workers'} {_ranges(ranks)}")
    return ", ".join(words)


def _ranges(numbers: list[int]) -> str:
    """Return ``0-3, 7`` for ``[0, 1, 2, 3, 7]``."""
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ", ".join(f"{low}" if low == high else f"{low}-{high}" for low, high in ranges)
