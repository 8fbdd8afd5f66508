"""The planner: a short-lived child of the supervisor that decides what runs, and how.

It reads the engine's configuration, settings and locations and reports to the
supervisor in plain values. What it needs of memory goes with it.
"""

from __future__ import annotations

import json
import os

from lmcache_plugin_adapter.configuration.effective import read_effective
from lmcache_plugin_adapter.configuration.locations import (
    INSTALLED_PREFIX,
    absolute,
    is_installed,
)
from lmcache_plugin_adapter.contract.launch_spec import LaunchSpec
from lmcache_plugin_adapter.contract.log_records import LEVELS
from lmcache_plugin_adapter.contract.planner_pipe import write_message
from lmcache_plugin_adapter.contract.runtime_dir import ENDING_FILE, remove_stale
from lmcache_plugin_adapter.linux.pid1 import ADVICE, server_is_pid1
from lmcache_plugin_adapter.messages.wording import count_processes
from lmcache_plugin_adapter.planner.discovery import scan
from lmcache_plugin_adapter.planner.plan import make_plan
from lmcache_plugin_adapter.planner.plugin_environment import (
    config_text,
    plugin_environment,
    plugin_path,
    write_config_file,
)
from lmcache_plugin_adapter.planner.plugin_files import PluginFiles
from lmcache_plugin_adapter.supervisor.metrics_files import clear_dead, plan_metrics
from lmcache_plugin_adapter.supervisor.processes.orphans import end_strays

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from lmcache_plugin_adapter.messages.problem import Problem
    from lmcache_plugin_adapter.planner.plan import PlannedPlugin


def run_planner(
    fd: int, data: bytes, config_file: str | None, root: str | None, skip: frozenset[str]
) -> None:
    """Plan what ``data``, a launch spec, asks for, and report to ``fd``.

    Args:
        fd: The pipe to the supervisor (see :mod:`.supervisor.planning.search`).
        data: The launch spec.
        config_file: Where to write the configuration for plugins; None: nowhere.
        root: The runtime directory, to be cleared of what the dead left; None: none.
        skip: Locations that do not answer.
    """

    def say(level: str, text: str) -> None:
        write_message(fd, ("log", (LEVELS[level], text)))

    def report(problems: Iterable[Problem]) -> None:
        for problem in problems:
            if problem.level != "note":
                say(problem.level, problem.text)

    spec = LaunchSpec.from_bytes(data)
    for level, text in spec.notes:
        say(level, text)
    if server_is_pid1():
        say("warning", f"Plugins may end without warning: {ADVICE}")
    text = config_text(spec)
    ending_file = None
    if config_file is not None:
        ending_file = os.path.join(os.path.dirname(config_file), ENDING_FILE)
        config_file, problems = write_config_file(*os.path.split(config_file), text)
        report(problems)
    environment, problems = plugin_environment(spec, os.environ, config_file, ending_file)
    report(problems)
    configured = read_effective(_extra_config(text), spec.locations, os.environ)
    settings, locations = configured.settings, configured.locations
    if spec.identity.worker_id <= 0:  # all workers read the same: the first one reports
        report(configured.settings_problems)
    report(configured.location_problems)
    if any(map(is_installed, skip)):
        # They are looked up in the same places: what one waits for, all do.
        skip |= set(filter(is_installed, locations))

    def progress(location: str) -> None:
        write_message(fd, ("location", location))

    path = plugin_path(spec.python, os.environ.get("PATH"))
    scanned = scan(locations, progress, skip, spec.import_path)
    plan = make_plan(spec.identity, PluginFiles(scanned, settings, spec.python, path, progress))
    report(plan.problems)
    variables = {
        os.fsencode(name): None if value is None else os.fsencode(value)
        for name, value in environment.items()
    }
    entries = [encode_plugin(plugin) for plugin in plan.plugins] if settings.enabled else []
    if not settings.enabled:
        say("note", "Plugins are switched off (extra_config.runtime_plugins.enabled: false)")
    metrics = None
    if settings.enabled and settings.metrics:
        metrics, problems = plan_metrics(spec, os.environ)
        report(problems)
    skipped = [location if is_installed(location) else absolute(location) for location in skip]
    message = {
        "environment": variables,
        "plugins": entries,
        "skipped": skipped,
        "metrics": metrics,
        "relay": settings.defaults.relay,
    }
    write_message(fd, ("plan", message))
    # The plugins are on their way: now there is time to clear up after the dead.
    killed = end_strays()
    if killed:
        say("note", f"Ended {count_processes(killed)} that dead engines left")
    if root is not None:
        remove_stale(root)
    if metrics is not None:
        clear_dead(metrics["directory"])


def encode_plugin(plugin: PlannedPlugin) -> dict[str, Any]:
    """Return a planned plugin in the plain values that the supervisor keeps."""
    settings = plugin.settings
    log = settings.log
    rate = settings.rate_limit
    backoff = settings.backoff
    file_name = os.path.basename(plugin.path)
    package = plugin.package
    return {
        "names": tuple(dict.fromkeys((plugin.name, file_name, plugin.path))),
        "path": plugin.path,
        "key": plugin.key,
        "file": file_name.removeprefix(INSTALLED_PREFIX),
        "signature": plugin.signature,
        "package": package and {"name": package[0], "version": package[1]},
        "argv": plugin.argv,
        "own_args": len(settings.args) if plugin.argv else 0,
        "environment": _encode(settings.env),
        "refused": plugin.refused,
        "restart": settings.restart,
        "backoff": (backoff.initial, backoff.max, backoff.reset_after),
        "stop_grace": settings.stop_grace,
        "max_line_bytes": settings.max_line_bytes,
        "ring_bytes": settings.ring_bytes,
        "rate_limit": None if rate is None else (rate.lines, rate.per, rate.burst),
        "log": None if log is None else (log.directory, log.max_bytes, log.files),
        "relay": settings.relay,
        "leftovers": settings.leftovers,
    }


def _encode(variables: Mapping[str, str]) -> dict[bytes, bytes]:
    return {os.fsencode(name): os.fsencode(value) for name, value in variables.items()}


def _extra_config(text: str) -> object:
    try:
        config = json.loads(text)
    except ValueError:
        return None
    return config.get("extra_config") if isinstance(config, dict) else None
