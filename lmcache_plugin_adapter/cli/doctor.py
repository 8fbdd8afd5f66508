"""``lmcache-plugins doctor``: would the adapter be active in this environment, and why not.

Looks at metadata, sources and files; imports neither vLLM, LMCache nor torch,
and changes nothing. Run it where the engine runs: in its container, with its
interpreter and its environment.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from lmcache_plugin_adapter.configuration.effective import read_effective
from lmcache_plugin_adapter.configuration.locations import is_installed
from lmcache_plugin_adapter.contract.runtime_dir import DIRECTORY_VARIABLE, candidates, why_unusable
from lmcache_plugin_adapter.hosts import upstream_names as upstream
from lmcache_plugin_adapter.linux.pid1 import INITS, name_of_pid1
from lmcache_plugin_adapter.planner.discovery import scan

from .lmcache_yaml import load_lmcache_yaml
from .yaml_reader import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

OFF = "off"  # the adapter is not active because of it
WARNING = "warning"  # it is, with less than it promises
OK = "ok"
LEVELS = (OFF, WARNING, OK)

CONFIG_VARIABLE = "LMCACHE_CONFIG_FILE"
PLUGINS_VARIABLE = "VLLM_PLUGINS"  # vLLM's allow-list of entry points, by name


@dataclass(frozen=True)
class Finding:
    """One thing looked at.

    Attributes:
        level: One of :data:`LEVELS`.
        subject: What was looked at, in a word or two.
        text: What was found, what follows and how to mend it.
    """

    level: str
    subject: str
    text: str


def doctor(as_json: bool = False, server: bool = False) -> int:
    """Print whether the adapter would be active here, and why not.

    Args:
        as_json: Print one JSON object instead of lines for people.
        server: For LMCache's multiprocess server instead of vLLM.

    Returns:
        The exit code: 0 when it would be active, 1 when not.
    """
    findings = list((examine_server if server else examine)(os.environ))
    active = all(finding.level != OFF for finding in findings)
    if as_json:
        print(json.dumps({"active": active, "findings": [asdict(one) for one in findings]}))
        return 0 if active else 1
    width = max(len(finding.subject) for finding in findings)
    for finding in findings:
        print(f"{finding.level:<8} {finding.subject:<{width}}  {finding.text}")
    print()
    if server:
        words = "can run" if active else "cannot run"
        print(f"The adapter {words} plugins beside 'lmcache server' of this environment.")
    elif active:
        print("The adapter is active in vLLM processes of this environment.")
    else:
        print("The adapter is not active here; LMCache's own launcher starts what it can.")
    return 0 if active else 1


def examine(environ: Mapping[str, str]) -> Iterator[Finding]:
    """Yield what there is to know of this environment, the most important first."""
    yield _entry_point()
    yield _allow_list(environ)
    for project in upstream.SUPPORTED:
        yield _project(project)
    yield from _names()
    yield from _configuration(environ)
    server = _server()
    if server.level != OFF:  # a host of its own: vLLM is none the worse without it
        yield server
    yield from _surroundings(environ)


def examine_server(environ: Mapping[str, str]) -> Iterator[Finding]:
    """Yield what there is to know where LMCache's multiprocess server is to run plugins."""
    yield _project("lmcache")
    yield _server()
    yield from _surroundings(environ)


def _surroundings(environ: Mapping[str, str]) -> Iterator[Finding]:
    yield _system()
    yield _pid_1("/proc")
    yield _runtime_directory(environ)


def _server() -> Finding:
    """Say how plugins run beside LMCache's multiprocess server of this version."""
    found = {one.upstream for one in upstream.check_upstream() if one.found}
    subject = "lmcache server"
    if upstream.SERVER_MODULE in found:
        text = (
            'takes --server-module \'{"module_path": "lmcache_plugin_adapter.server_module", …}\''
        )
        if upstream.SERVER_CONFIGS not in found:
            return Finding(WARNING, subject, f"{text}; {upstream.SERVER_CONFIGS.if_gone}")
        return Finding(OK, subject, text)
    if upstream.SERVER_LAUNCHER in found:
        text = "takes no --server-module (LMCache 0.5.6 does): start lmcache_plugin_adapter"
        return Finding(OK, subject, f"{text}.server_plugin from --runtime-plugin-locations")
    return Finding(OFF, subject, "is not there, or runs no plugins: LMCache 0.4.4 is the first")


def _entry_point() -> Finding:
    group = upstream.ENTRY_POINT_GROUP
    for point in importlib.metadata.entry_points(group=group):
        if point.name == upstream.ENTRY_POINT:
            return Finding(OK, "entry point", f"'{point.name}' ({point.value}) in '{group}'")
    return Finding(
        OFF,
        "entry point",
        f"'{upstream.ENTRY_POINT}' is not in '{group}': pip install lmcache-plugin-adapter with "
        f"{sys.executable}",
    )


def _allow_list(environ: Mapping[str, str]) -> Finding:
    value = environ.get(PLUGINS_VARIABLE)
    if value is None:
        return Finding(OK, PLUGINS_VARIABLE, "not set: vLLM loads every plugin")
    if upstream.ENTRY_POINT in value.split(","):
        return Finding(OK, PLUGINS_VARIABLE, f"'{value}' allows '{upstream.ENTRY_POINT}'")
    more = f"{value},{upstream.ENTRY_POINT}" if value else upstream.ENTRY_POINT
    return Finding(
        OFF,
        PLUGINS_VARIABLE,
        f"'{value}' leaves '{upstream.ENTRY_POINT}' out: set {PLUGINS_VARIABLE}={more}, or name "
        "the connector class LMCacheAdapterConnector of lmcache_plugin_adapter.connector",
    )


def _project(project: str) -> Finding:
    if not upstream.package_directory(project):
        return Finding(OFF, project, f"not installed for {sys.executable}")
    version = upstream.installed_version(project)
    first, last = upstream.SUPPORTED[project]
    if not version:
        return Finding(WARNING, project, f"of unknown version; supported are {first} to {last}")
    if upstream.is_supported(project, version):
        return Finding(OK, project, f"{version} (supported: {first} to {last})")
    return Finding(
        WARNING,
        project,
        f"{version} was never tried: supported are {first} to {last}; the names below tell what "
        "works",
    )


def _names() -> Iterator[Finding]:
    """Yield each upstream name that is gone, and how many are there."""
    findings = upstream.check_upstream()
    missing = [one for one in findings if not one.found]
    for finding in missing:
        name = finding.upstream
        if name.loss != "none":
            level = OFF if name.loss == "all" else WARNING
            text = f"{name.name} is gone (known in {name.versions}): {name.if_gone}"
            yield Finding(level, f"{name.project} name", text)
    if findings:
        absent = [one.upstream.name for one in missing if one.upstream.loss == "none"]
        more = f"; not in this version, and not needed: {', '.join(absent)}" if absent else ""
        text = f"{len(findings) - len(missing)} of {len(findings)} found{more}"
        yield Finding(OK, "upstream names", text)


def _configuration(environ: Mapping[str, str]) -> Iterator[Finding]:
    path = environ.get(CONFIG_VARIABLE)
    if path is None:
        yield Finding(
            OK, "configuration", f"{CONFIG_VARIABLE} is not set: LMCache reads LMCACHE_* variables"
        )
        return
    try:
        config = load_lmcache_yaml(path, environ)
    except ConfigError as error:
        yield Finding(WARNING, "configuration", f"LMCache may not start with it: {error}")
        return
    found = read_effective(config.extra_config, config.runtime_plugin_locations, environ)
    locations, why = found.locations, found.why_nothing_runs
    for problem in (*config.problems, *found.settings_problems, *found.location_problems):
        yield Finding(WARNING if problem.level != "note" else OK, "configuration", problem.text)
    if why == "disabled":
        text = f"extra_config.runtime_plugins.enabled is false in '{path}'"
        yield Finding(OFF, "configuration", text)
    elif why:
        text = f"'{path}' names no runtime_plugin_locations: there is nothing to run"
        yield Finding(OFF, "configuration", text)
    else:
        named = ", ".join(f"'{location}'" for location in locations)
        text = f"'{path}' names {named}; 'lmcache-plugins check' tells what runs from there"
        yield Finding(OK, "configuration", text)
        installed = list(filter(is_installed, locations))
        for problem in scan(installed, import_path=sys.path).problems:
            yield Finding(WARNING, "configuration", problem.text)


def _system() -> Finding:
    if not sys.platform.startswith("linux"):
        return Finding(OFF, "system", f"{sys.platform} has none of what the supervisor needs")
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError) as error:
        reason = getattr(error, "strerror", None) or "this Python has no os.pidfd_open"
        text = f"no process descriptors ({reason}): an engine's end may be noticed 0.5 s late"
        return Finding(WARNING, "system", text)
    return Finding(OK, "system", f"Linux {os.uname().release}, process descriptors work")


def _pid_1(proc: str) -> Finding:
    """Say what becomes of plugins when PID 1 ends, which takes everything with it at once."""
    name = name_of_pid1(proc) or "unknown"
    if name in INITS:
        return Finding(OK, "PID 1", f"'{name}' outlives the server: plugins get their grace period")
    return Finding(
        WARNING,
        "PID 1",
        f"'{name}' is not an init: where the server itself is PID 1, its end kills plugins without "
        "their grace period; start the container with 'docker run --init' or tini, or in "
        "Kubernetes with shareProcessNamespace: true",
    )


def _runtime_directory(environ: Mapping[str, str]) -> Finding:
    reasons = []
    for path in candidates(environ):
        reason = _why_not(path)
        if reason is None:
            return Finding(OK, "runtime directory", f"'{path}'")
        reasons.append(f"'{path}': {reason}")
    return Finding(
        WARNING,
        "runtime directory",
        "none is usable, so that status, logs and stop do not reach supervisors "
        f"({'; '.join(reasons)}): set {DIRECTORY_VARIABLE} to a private directory",
    )


def _why_not(path: str) -> str | None:
    if os.path.lexists(path):
        return why_unusable(path)
    parent = os.path.dirname(path) or "."
    return None if os.access(parent, os.W_OK | os.X_OK) else f"cannot be made in '{parent}'"
