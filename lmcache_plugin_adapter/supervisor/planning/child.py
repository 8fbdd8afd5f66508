# SPDX-License-Identifier: Apache-2.0
"""The planning child: a short-lived child of the supervisor that decides what runs, and how.

It reads the engine's configuration, settings and locations, and reports to the
supervisor in plain values. Its exit frees the memory that this takes. What few
plans need is imported late, as the plugins' start waits for the imports.
"""

from __future__ import annotations

import json
import os

from lmcache_plugin_adapter.configuration.effective import read_effective
from lmcache_plugin_adapter.configuration.locations import (
    absolute,
    is_installed,
)
from lmcache_plugin_adapter.contract.launch_spec import LaunchSpec
from lmcache_plugin_adapter.contract.log_records import LEVELS, is_debug_requested
from lmcache_plugin_adapter.contract.planned_plugin import SupervisorPlan
from lmcache_plugin_adapter.contract.planner_pipe import write_message
from lmcache_plugin_adapter.contract.runtime_dir import ENDING_NAME, remove_stale
from lmcache_plugin_adapter.linux.pid1 import ADVICE, server_is_pid1
from lmcache_plugin_adapter.messages.problem import Problem
from lmcache_plugin_adapter.messages.wording import count_processes, counted
from lmcache_plugin_adapter.planner.discovery import scan
from lmcache_plugin_adapter.planner.plan import make_plan
from lmcache_plugin_adapter.planner.plugin_environment import (
    config_text,
    plugin_environment,
    plugin_path,
    write_config_file,
)
from lmcache_plugin_adapter.planner.plugin_files import PluginFiles

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

_STALE_SECONDS = 30.0
"""How long directories of dead engines are tried again while a process holds them."""


def run_planner(
    fd: int, data: bytes, config_file: str | None, root: str | None, skip: frozenset[str]
) -> None:
    """Plan what a launch spec requests, and report to ``fd``.

    Args:
        fd: The pipe to the supervisor (see :mod:`.supervisor.planning.search`).
        data: The launch spec.
        config_file: Where to write the configuration for plugins; None for nowhere.
        root: The runtime directory, to be cleared of files of dead supervisors; or None.
        skip: Locations that do not answer.
    """

    def log(level: str, text: str) -> None:
        write_message(fd, ("log", (LEVELS[level], text)))

    directory = None if config_file is None else os.path.dirname(config_file)
    elsewhere: dict[str, str] = {}

    def report(problems: Iterable[Problem]) -> None:
        # Notes are for `lmcache-plugins check`.
        wanted = [problem for problem in problems if problem.level != "note"]
        if not wanted:
            return
        from .replica_reports import claim

        claimed = claim(directory, [each.text for each in wanted]) if directory else {}
        elsewhere.update(claimed)
        for problem in wanted:
            if problem.text not in claimed:
                log(problem.level, problem.text)

    spec = LaunchSpec.from_bytes(data)
    for level, text in spec.notes:
        log(level, text)
    if server_is_pid1():
        report([Problem("warning", f"Plugins may end without warning: {ADVICE}")])
    text = config_text(spec)
    ending_file = None
    if config_file is not None:
        ending_file = os.path.join(os.path.dirname(config_file), ENDING_NAME)
        config_file, problems = write_config_file(*os.path.split(config_file), text)
        report(problems)
    environment, problems = plugin_environment(spec, os.environ, config_file, ending_file)
    report(problems)
    configured = read_effective(_extra_config(text), spec.locations, os.environ)
    settings, locations = configured.settings, configured.locations
    report([*configured.settings_problems, *configured.location_problems])
    if any(map(is_installed, skip)):
        # All are looked up in the same places: if one hangs, all do.
        skip |= set(filter(is_installed, locations))

    def progress(location: str) -> None:
        write_message(fd, ("location", location))

    path = plugin_path(spec.python, os.environ.get("PATH"))
    scanned = scan(locations, progress, skip, spec.import_path)
    files = PluginFiles(scanned, settings, spec.python, path, progress)
    plan = make_plan(spec.identity, files)
    report(plan.problems)
    variables = {
        os.fsencode(name): None if value is None else os.fsencode(value)
        for name, value in environment.items()
    }
    if environment.get("PATH") == path:
        variables[b"PATH"] = os.fsencode(files.path)
    if not settings.enabled:
        log("note", "Plugins are switched off (extra_config.runtime_plugins.enabled: false)")
    metrics = None
    if settings.enabled and (settings.metrics or settings.metrics_textfile is not None):
        from lmcache_plugin_adapter.supervisor.metrics.plan import plan_metrics

        metrics, problems = plan_metrics(spec, settings.metrics_textfile, os.environ)
        report(problems)
    skipped = [location if is_installed(location) else absolute(location) for location in skip]
    plugins = plan.plugins if settings.enabled else ()
    if config_file is not None and any(plugin.credentials is not None for plugin in plugins):
        from .user_files import UserFiles

        user_files = UserFiles(os.environ, os.path.basename(os.path.dirname(config_file)), text)
        plugins = tuple(map(user_files.add_to, plugins))
        report(user_files.problems)
    watched = None
    if settings.auto_reload:
        from .watched import silent_file_systems, watched_directories

        watched = watched_directories(
            [absolute(each) for each in locations if not is_installed(each) and each not in skip],
            [entry.path for entry in files.entries if entry.installed is None],
        )
        report(silent_file_systems(watched))
    _say_elsewhere(log, elsewhere)
    message = SupervisorPlan(
        plugins=plugins,
        environment=variables,
        skipped=tuple(skipped),
        metrics=metrics,
        relay=settings.defaults.relay,
        watched=watched,
    )
    write_message(fd, ("plan", message.to_values()))
    _clear_up(root, None if metrics is None else metrics.directory, log)


def _clear_up(root: str | None, metrics: str | None, log: Callable[[str, str], None]) -> None:
    """Clear up after dead engines, while the supervisor starts the plugins."""
    from lmcache_plugin_adapter.supervisor.processes.orphans import kill_orphans, kill_recorded

    from .user_files import remove_stale_user_files

    killed = kill_orphans()
    if killed:
        log("note", f"Ended {count_processes(killed)} that dead engines left")
    if root is not None:
        remove_stale(root, kill_recorded, _STALE_SECONDS)
        remove_stale_user_files(os.environ)
    if metrics is not None:
        from lmcache_plugin_adapter.supervisor.metrics.plan import clear_dead

        clear_dead(metrics)


def _say_elsewhere(log: Callable[[str, str], None], elsewhere: Mapping[str, str]) -> None:
    """Log at debug level what other processes of the replica have logged in full."""
    if is_debug_requested(os.environ):
        for text, label in elsewhere.items():
            log("debug", f"{text} (logged by {label})")
    elif elsewhere:
        labels = " and ".join(sorted(set(elsewhere.values())))
        found = counted(len(elsewhere), "problem")
        log("debug", f"{found} of the same configuration: see the log of {labels}")


def _extra_config(text: str) -> object:
    try:
        config = json.loads(text)
    except ValueError:
        return None
    return config.get("extra_config") if isinstance(config, dict) else None
