# SPDX-License-Identifier: Apache-2.0
"""Run runtime plugins beside an LMCache server without server modules.

LMCache's launcher starts this as its one plugin (see ``configs/server/launch.sh``)::

    lmcache server ... --runtime-plugin-locations launch.sh
      --runtime-plugin-config '{"runtime_plugin_locations": ["/etc/lmcache/plugins"]}'

It owns the launcher of the plugins and waits for LMCache's SIGTERM or for the exit of the server,
which it notices by itself.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NoReturn

from lmcache_plugin_adapter.contract.plugin_states import NO_RESTART_CODE
from lmcache_plugin_adapter.contract.variables import CONFIG, RUN_ID
from lmcache_plugin_adapter.engine.launcher import LaunchError, RuntimePluginLauncher
from lmcache_plugin_adapter.linux.event_loop import Loop
from lmcache_plugin_adapter.linux.process_watch import watch_engine
from lmcache_plugin_adapter.linux.procfs import read_process
from lmcache_plugin_adapter.linux.syscalls import pidfd_open

from .config import OWN_PARAMETERS, read_server_config

if TYPE_CHECKING:
    from .config import ServerConfig

NAME = "lmcache-plugins"


def main(argv: Sequence[str]) -> int:
    """Run the plugins until the server exits or a signal arrives; return the exit status.

    Args:
        argv: The server's pid; without it, the parent is the server.
    """
    # Read first: if the server exits now, this process gets another parent.
    server = int(argv[0]) if argv else os.getppid()
    if RUN_ID in os.environ:
        return _fail("this is itself run as a plugin by this package: take it out of the locations")
    try:
        config = read_handed_over(os.environ.get(CONFIG))
    except ValueError as error:
        return _fail(str(error))
    for problem in config.problems:
        _say(f"{problem.level}: {problem.text}")
    if config.why_nothing:
        return _fail(f"{config.why_nothing} in --runtime-plugin-config")
    loop = Loop(on_error=_raise)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.on_signal(number, loop.stop)
    _watch(loop, server)
    launcher = RuntimePluginLauncher.for_identity(config, config.identity, engine_pid=server)
    try:
        launcher.launch_or_raise()
    except LaunchError as error:
        return _fail(str(error))
    loop.run()
    launcher.stop_plugins()
    return 0


def read_handed_over(text: str | None) -> ServerConfig:
    """Read the configuration that LMCache's launcher passes to a plugin of the server.

    Raises:
        ValueError: It is missing, or no JSON object.
    """
    try:
        config = json.loads(text or "")
    except ValueError as error:
        raise ValueError(f"cannot read {CONFIG}: {error}") from error
    if not isinstance(config, Mapping):
        raise ValueError(f"cannot read {CONFIG}: it is no JSON object")  # noqa: TRY004
    host = {key: value for key, value in config.items() if key != OWN_PARAMETERS}
    return read_server_config(
        config.get(OWN_PARAMETERS), host, source="--runtime-plugin-config of the server"
    )


def _watch(loop: Loop, server: int) -> None:
    """Stop the loop when the server exits; LMCache may be unable to send a signal."""
    began = read_process(server)
    try:
        pidfd = pidfd_open(server)
    except OSError:
        pidfd = -1
    if began is None or os.getppid() != server:
        loop.call_soon(loop.stop)  # it has exited already
        return
    watch_engine(loop, pidfd, server, began.start, loop.stop, _say)


def _say(text: str) -> None:
    try:
        print(f"{NAME}: {text}", file=sys.stderr, flush=True)
    except OSError:
        pass  # the server has closed the pipe


def _fail(text: str) -> int:
    _say(f"no runtime plugins run: {text}")
    return NO_RESTART_CODE


def _raise(error: BaseException) -> NoReturn:
    raise error
