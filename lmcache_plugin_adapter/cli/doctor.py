# SPDX-License-Identifier: Apache-2.0
"""``lmcache-plugins doctor``: report whether the adapter is active in this environment.

Reads metadata, sources and files; imports neither vLLM, LMCache nor torch, and
changes nothing.
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
from lmcache_plugin_adapter.contract.version import __version__
from lmcache_plugin_adapter.hosts import upstream_names
from lmcache_plugin_adapter.linux.pid1 import INITS, name_of_pid1
from lmcache_plugin_adapter.linux.supported import why_unsupported
from lmcache_plugin_adapter.planner.discovery import scan

from .console import ExitStatus, listed
from .lmcache_yaml import load_lmcache_yaml
from .stale_distribution import find_stale_distribution
from .transfer_config import (
    MULTIPROCESS,
    TransferConfigError,
    examine_connector,
    lmcache_connectors,
    read_transfer_config,
    starts_server,
)
from .yaml_reader import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

VERSION = 1
"""Of the JSON document: increased when a key is removed or changes its meaning."""

OFF = "off"  # the adapter is not active for this reason
WARNING = "warning"  # the adapter is active, with limits
OK = "ok"
LEVELS = (OFF, WARNING, OK)

SERVER = "lmcache server"  # the subject of what LMCache's server supports
CONNECTOR = "connector"  # the subject of the value of --kv-transfer-config
CONFIG_VARIABLE = "LMCACHE_CONFIG_FILE"
PLUGINS_VARIABLE = "VLLM_PLUGINS"  # vLLM's allow-list of entry points, by name
SGLANG_PLUGINS_VARIABLE = "SGLANG_PLUGINS"  # SGLang's


@dataclass(frozen=True)
class Diagnosis:
    """The result of one check.

    Attributes:
        level: One of :data:`LEVELS`.
        subject: The checked part of the environment, in a word or two.
        text: The finding, its effect and the repair.
    """

    level: str
    subject: str
    text: str


def doctor(
    as_json: bool = False, server: bool = False, kv_transfer_config: str | None = None
) -> int:
    """Print whether the adapter would be active in this environment, and why not.

    Args:
        as_json: Print one JSON document instead of lines.
        server: Inspect LMCache's multiprocess server, not vLLM.
        kv_transfer_config: The value of vLLM's ``--kv-transfer-config``: it decides which of
            the two is inspected.

    Returns:
        The exit status: 0 if the adapter would be active, else 1.
    """
    transfer: list[Diagnosis] = []
    if kv_transfer_config is not None:
        modes, transfer = _transfer(kv_transfer_config)
        server = server or modes == {MULTIPROCESS}
    host = "server" if server else "vllm"
    if host == "vllm" and not transfer and _is_sglang_alone():
        host = "sglang"
    examined = {"server": examine_server, "sglang": examine_sglang, "vllm": examine}[host]
    findings = [*transfer, *examined(os.environ)]
    active = all(finding.level != OFF for finding in findings)
    if as_json:
        document = {
            "version": VERSION,
            "package_version": __version__,
            "active": active,
            "findings": [asdict(one) for one in findings],
        }
        print(json.dumps(document))
    else:
        print(f"lmcache-plugins {__version__}")
        width = max(len(finding.subject) for finding in findings)
        for finding in findings:
            print(f"{finding.level:<8} {finding.subject:<{width}}  {finding.text}")
        print(f"\n{_summary(findings, active, host)}")
    return ExitStatus.OK if active else ExitStatus.FAILED


def _is_sglang_alone() -> bool:
    installed = upstream_names.package_directory
    return bool(installed("sglang")) and not installed("vllm")


def _summary(findings: Sequence[Diagnosis], active: bool, host: str) -> str:
    if any(one.subject == CONNECTOR and one.level == OFF for one in findings):
        return "With this --kv-transfer-config, the adapter runs no plugins."
    if host == "sglang":
        words = "is active" if active else "is not active"
        text = f"The adapter {words} in SGLang's ranks of this environment."
        return f"{text} Plugins beside 'lmcache server' need nothing in SGLang."
    if host == "server":
        words = "can run" if active else "cannot run"
        return f"The adapter {words} plugins beside 'lmcache server' of this environment."
    if active:
        return "The adapter is active in vLLM processes of this environment."
    missing = [
        one.subject
        for one in findings
        if one.subject in upstream_names.SUPPORTED and one.level == OFF
    ]
    if missing:
        text = f"The adapter is not active in this environment. Without {listed(missing)}, "
        if any(one.subject == SERVER for one in findings):
            return f"{text}only LMCache's server runs plugins here: see 'doctor --server'."
        return f"{text}nothing runs plugins here."
    return (
        "The adapter is not active in this environment. LMCache's built-in launcher will run the "
        "plugins instead."
    )


def examine(environ: Mapping[str, str]) -> Iterator[Diagnosis]:
    """Yield the results for vLLM, the most important first."""
    yield _entry_point()
    yield _allow_list(environ)
    for project in upstream_names.SUPPORTED:
        yield _project(project)
    yield from _names()
    yield from _configuration(environ)
    server = _server()
    if server.level != OFF:  # vLLM does not need it
        yield server
    yield from _surroundings(environ)


def examine_server(environ: Mapping[str, str]) -> Iterator[Diagnosis]:
    """Yield the results for LMCache's multiprocess server."""
    yield _project("lmcache")
    yield _server()
    yield from _surroundings(environ)


def examine_sglang(environ: Mapping[str, str]) -> Iterator[Diagnosis]:
    """Yield the results for plugins in the ranks of SGLang."""
    yield _entry_point(upstream_names.SGLANG_ENTRY_POINT_GROUP)
    yield _allow_list(environ, SGLANG_PLUGINS_VARIABLE, "SGLang", "")
    version = upstream_names.installed_version("sglang")
    tried = upstream_names.SGLANG_TRIED
    yield Diagnosis(OK, "sglang", f"{version or 'of unknown version'} (tried: {tried})")
    missing = upstream_names.missing_in_sglang()
    if missing:
        text = f"{listed(missing)} missing: no plugins in the ranks of this version"
        yield Diagnosis(OFF, "sglang names", text)
    yield _project("lmcache")
    yield from _surroundings(environ)


def _transfer(text: str) -> tuple[set[str], list[Diagnosis]]:
    """Return the modes that LMCache runs in by ``--kv-transfer-config``, and what it means."""
    try:
        found = list(lmcache_connectors(read_transfer_config(text)))
    except TransferConfigError as error:
        return set(), [Diagnosis(OFF, CONNECTOR, str(error))]
    missing = {one.upstream for one in upstream_names.check_upstream() if not one.found}
    findings = []
    for mode, config in found:
        level, words = examine_connector(mode, config)
        if level == OK and starts_server(config) and upstream_names.SERVER_MODULE in missing:
            level, words = OFF, "vLLM cannot start LMCache's server: it takes no --server-module"
        findings.append(Diagnosis(level, CONNECTOR, words))
    if not found:
        findings.append(Diagnosis(OFF, CONNECTOR, "no connector of LMCache's is named"))
    return {mode for mode, _ in found}, findings


def _surroundings(environ: Mapping[str, str]) -> Iterator[Diagnosis]:
    yield _system()
    yield _pid_1("/proc")
    yield _runtime_directory(environ)


def _server() -> Diagnosis:
    """Report how plugins run beside the multiprocess server of this LMCache version."""
    found = {one.upstream for one in upstream_names.check_upstream() if one.found}
    if upstream_names.SERVER_MODULE in found:
        text = (
            'takes --server-module \'{"module_path": "lmcache_plugin_adapter.server_module", …}\''
        )
        if upstream_names.SERVER_CONFIGS not in found:
            return Diagnosis(WARNING, SERVER, f"{text}; {upstream_names.SERVER_CONFIGS.if_gone}")
        return Diagnosis(OK, SERVER, text)
    if upstream_names.SERVER_LAUNCHER in found:
        text = "takes no --server-module (LMCache 0.5.6 does): start lmcache_plugin_adapter"
        return Diagnosis(OK, SERVER, f"{text}.server_plugin from --runtime-plugin-locations")
    return Diagnosis(
        OFF, SERVER, "is missing, or runs no plugins: LMCache 0.4.4 is the first version that does"
    )


def _entry_point(group: str = upstream_names.ENTRY_POINT_GROUP) -> Diagnosis:
    if stale := find_stale_distribution(group, upstream_names.ENTRY_POINT):
        text = f"'{upstream_names.ENTRY_POINT}' of '{group}' does not load: {stale}"
        return Diagnosis(OFF, "entry point", text)
    for point in importlib.metadata.entry_points(group=group):
        if point.name == upstream_names.ENTRY_POINT:
            return Diagnosis(OK, "entry point", f"'{point.name}' ({point.value}) in '{group}'")
    return Diagnosis(
        OFF,
        "entry point",
        f"'{upstream_names.ENTRY_POINT}' is not in '{group}': pip install lmcache-plugin-adapter "
        f"with {sys.executable}",
    )


def _allow_list(
    environ: Mapping[str, str],
    variable: str = PLUGINS_VARIABLE,
    host: str = "vLLM",
    otherwise: str = ", or use the connector class LMCacheAdapterConnector of "
    "lmcache_plugin_adapter.connector",
) -> Diagnosis:
    value = environ.get(variable)
    if value is None:
        return Diagnosis(OK, variable, f"not set: {host} loads every plugin")
    if upstream_names.ENTRY_POINT in value.split(","):
        return Diagnosis(OK, variable, f"'{value}' allows '{upstream_names.ENTRY_POINT}'")
    more = f"{value},{upstream_names.ENTRY_POINT}" if value else upstream_names.ENTRY_POINT
    text = f"'{value}' excludes '{upstream_names.ENTRY_POINT}': set {variable}={more}{otherwise}"
    return Diagnosis(OFF, variable, text)


def _project(project: str) -> Diagnosis:
    if not upstream_names.package_directory(project):
        return Diagnosis(OFF, project, f"not installed for {sys.executable}")
    version = upstream_names.installed_version(project)
    first, last = upstream_names.SUPPORTED[project]
    if not version:
        return Diagnosis(WARNING, project, f"of unknown version; supported are {first} to {last}")
    if upstream_names.is_supported(project, version):
        return Diagnosis(OK, project, f"{version} (supported: {first} to {last})")
    return Diagnosis(
        WARNING,
        project,
        f"{version} was never tried: supported are {first} to {last}; the names below show what "
        "works",
    )


def _names() -> Iterator[Diagnosis]:
    """Yield each upstream name that is missing, and the number of names found."""
    findings = upstream_names.check_upstream()
    missing = [one for one in findings if not one.found]
    for finding in missing:
        name = finding.upstream
        if name.loss != "none":
            level = OFF if name.loss == "all" else WARNING
            text = f"{name.name} is missing (present in {name.versions}): {name.if_gone}"
            yield Diagnosis(level, f"{name.project} name", text)
    if findings:
        absent = [one.upstream.name for one in missing if one.upstream.loss == "none"]
        more = f"; not in this version, and not needed: {', '.join(absent)}" if absent else ""
        text = f"{len(findings) - len(missing)} of {len(findings)} found{more}"
        yield Diagnosis(OK, "upstream names", text)


def _configuration(environ: Mapping[str, str]) -> Iterator[Diagnosis]:
    path = environ.get(CONFIG_VARIABLE)
    if path is None:
        yield Diagnosis(
            OK, "configuration", f"{CONFIG_VARIABLE} is not set: LMCache reads LMCACHE_* variables"
        )
        return
    try:
        config = load_lmcache_yaml(path, environ)
    except ConfigError as error:
        yield Diagnosis(WARNING, "configuration", f"LMCache may not start with it: {error}")
        return
    found = read_effective(config.extra_config, config.runtime_plugin_locations, environ)
    locations, why = found.locations, found.why_nothing_runs
    for problem in (*config.problems, *found.settings_problems, *found.location_problems):
        yield Diagnosis(WARNING if problem.level != "note" else OK, "configuration", problem.text)
    if why == "disabled":
        text = f"extra_config.runtime_plugins.enabled is false in '{path}'"
        yield Diagnosis(OFF, "configuration", text)
    elif why:
        text = f"'{path}' names no runtime_plugin_locations: there is nothing to run"
        yield Diagnosis(OFF, "configuration", text)
    else:
        named = ", ".join(f"'{location}'" for location in locations)
        text = f"'{path}' names {named}; 'lmcache-plugins check' shows what runs from there"
        yield Diagnosis(OK, "configuration", text)
        installed = list(filter(is_installed, locations))
        for problem in scan(installed, import_path=sys.path).problems:
            yield Diagnosis(WARNING, "configuration", problem.text)


def _system() -> Diagnosis:
    why = why_unsupported()
    if why is not None:
        return Diagnosis(OFF, "system", why)
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError) as error:
        reason = getattr(error, "strerror", None) or "this Python has no os.pidfd_open"
        text = f"no process descriptors ({reason}): an engine's exit may be noticed 0.5 s late"
        return Diagnosis(WARNING, "system", text)
    return Diagnosis(OK, "system", f"Linux {os.uname().release}, process descriptors work")


def _pid_1(proc: str) -> Diagnosis:
    """Report what happens to plugins when PID 1 exits, which kills all other processes."""
    name = name_of_pid1(proc) or "unknown"
    if name in INITS:
        return Diagnosis(
            OK, "PID 1", f"'{name}' outlives the server: plugins get their grace period"
        )
    return Diagnosis(
        WARNING,
        "PID 1",
        f"'{name}' is not an init: if the server itself is PID 1, its exit kills plugins without "
        "their grace period; start the container with 'docker run --init' or tini, or in "
        "Kubernetes with shareProcessNamespace: true",
    )


def _runtime_directory(environ: Mapping[str, str]) -> Diagnosis:
    reasons = []
    for path in candidates(environ):
        reason = _why_not(path)
        if reason is None:
            return Diagnosis(OK, "runtime directory", f"'{path}'")
        reasons.append(f"'{path}': {reason}")
    return Diagnosis(
        WARNING,
        "runtime directory",
        "none is usable, so status, logs and stop do not reach supervisors "
        f"({'; '.join(reasons)}): set {DIRECTORY_VARIABLE} to a private directory",
    )


def _why_not(path: str) -> str | None:
    if os.path.lexists(path):
        return why_unusable(path)
    parent = os.path.dirname(path) or "."
    return None if os.access(parent, os.W_OK | os.X_OK) else f"cannot be created in '{parent}'"
