# SPDX-License-Identifier: Apache-2.0
"""``lmcache-plugins run``: run plugins under stand-in engines."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from lmcache_plugin_adapter.cli.console import fail, listed, print_line, print_problem
from lmcache_plugin_adapter.cli.inputs import UsageError, read_config, read_server, require_work
from lmcache_plugin_adapter.cli.logs.formats import RunFormat
from lmcache_plugin_adapter.contract.version import __version__
from lmcache_plugin_adapter.hosts.standin import Assignment

from .engines import Engines
from .trial import empty_config, empty_server_config, read_trial

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lmcache_plugin_adapter.cli.lmcache_yaml import StandInConfig
    from lmcache_plugin_adapter.contract.identity import ProcessIdentity
    from lmcache_plugin_adapter.hosts.lmcache_server.config import ServerConfig

    from .stand_ins import StandIns


def run(
    path: str | None,
    stand_ins: StandIns,
    seconds: float | None,
    files: Sequence[str] = (),
    form: RunFormat | None = None,
) -> int:
    """Run stand-in engines until a signal, the time limit or their end; return the exit status.

    Args:
        path: The configuration file, if given.
        stand_ins: The engines.
        seconds: Time limit, if given.
        files: Run these plugins in place of those of the configuration.
        form: The form of log lines; None: short on a terminal, else that of LMCache.
    """
    try:
        config, identities = _prepare(path, stand_ins, files)
        require_work(config)
    except UsageError as error:
        return fail(error)
    print_line(f"lmcache-plugins {__version__}: stand-in engines for '{config.source}'")
    them = "it" if len(identities) == 1 else "them"
    print_line(f"Running {listed([who.label for who in identities])}; Ctrl-C stops {them}.")
    for problem in config.problems:
        print_problem(problem.level, problem.text)
    environment = dict(os.environ)
    if path:
        environment["LMCACHE_CONFIG_FILE"] = os.path.abspath(path)
    if form is None:
        form = RunFormat.SHORT if sys.stderr.isatty() else RunFormat.LMCACHE
    labels = [identity.label for identity in identities]
    engines = Engines(environment, labels if form is RunFormat.SHORT else None)
    for identity in identities:
        engines.start(
            Assignment(
                identity,
                config.runtime_plugin_locations,
                config.extra_config,
                config.to_json(),
                serves=True,
            )
        )
    return engines.wait(seconds)


def _prepare(
    path: str | None, stand_ins: StandIns, files: Sequence[str]
) -> tuple[StandInConfig | ServerConfig, list[ProcessIdentity]]:
    """Return the configuration and the processes.

    Raises:
        UsageError: The command line or the configuration cannot be used.
    """
    trial = read_trial(files) if files else None
    if trial:
        stand_ins = trial.stand_ins(stand_ins)
    config: StandInConfig | ServerConfig
    if stand_ins.for_server:
        config = read_server(path) if path or not trial else empty_server_config(files)
        identities = [config.identity]
    else:
        identities = stand_ins.identities()
        config = read_config(path) if path or not trial else empty_config(files)
    if trial:
        return trial.apply_to(config), trial.identities(identities)
    return config, identities
