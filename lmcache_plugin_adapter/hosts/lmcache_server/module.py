# SPDX-License-Identifier: Apache-2.0
"""Run runtime plugins beside LMCache's multiprocess server, as a module of that server.

The server's command line names it (LMCache 0.5.6)::

    lmcache server ... --server-module '{"module_path": "lmcache_plugin_adapter.server_module",
      "config": {"runtime_plugin_locations": ["/etc/lmcache/plugins"]}}'

An exception in a factory kills the server, so nothing here raises one. Each problem is one line
in the server's log, and the server continues.
"""

from __future__ import annotations

import logging
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from lmcache_plugin_adapter.engine.launcher import RuntimePluginLauncher

    from .config import ServerConfig

STATUS_KEY = "runtime_plugins"
"""The key of the plugins in the server's ``/status``."""

STATUS_SECONDS = 0.25
"""How long ``/status`` waits for the supervisor; the server's event loop waits with it."""

CLOSE_SECONDS = 2.0
"""How long the server's shutdown waits for plugins; its container may stop with the server."""

_log = logging.getLogger(__name__)

# The module of LMCache's HTTP server holds the configuration objects; with ``python -m`` it is
# the program itself. The name is private, but no other place has all of them.
_HTTP_SERVER = ("lmcache.v1.multiprocess.http_server", "__main__")
_CONFIGS = "_configs"
_KEYS = {
    "mp": "mp_config",
    "storage_manager": "storage_manager_config",
    "observability": "obs_config",
    "http": "http_config",
}


def build_server_modules(build_context: Any) -> Any:
    """Start the plugins that ``build_context.config`` names; never raises.

    Args:
        build_context: LMCache's ``ExtServerModuleBuildContext``, or the
            ``ServerModuleBuildContext`` that LMCache proposes in its place.

    Returns:
        A :class:`PluginModule`, which stops the plugins and reports their state. It does
        nothing if there is nothing to run or something is wrong. The proposed interface
        gets it inside its ``ServerModuleComponents``.
    """
    module = PluginModule(getattr(build_context, "server_context", None))
    try:
        _use_lmcaches_log()
        module.start(build_context)
    except Exception as error:  # noqa: BLE001 - the server serves on
        module.turn_off(" ".join(str(error).split()) or repr(error))
        _log.error("Runtime plugins do not run: %s; the server serves on", module.reason)
    home = sys.modules.get(type(build_context).__module__)
    components = getattr(home, "ServerModuleComponents", None)
    return module if components is None else components(modules=(module,))


class PluginModule:
    """A module of LMCache's server (its ``EngineModule``) that owns the plugins.

    Args:
        context: LMCache's shared server context; kept for it, not used.
    """

    def __init__(self, context: Any) -> None:
        self._context = context
        self._launchers: list[RuntimePluginLauncher] = []
        self._speaks = True
        self.reason = "not started"
        """The reason why no plugins run."""

    @property
    def context(self) -> Any:
        """LMCache's shared server context; its protocol requires it."""
        return self._context

    def start(self, build_context: Any) -> None:
        """Start the plugins; return before the locations are searched.

        Raises:
            LaunchError: No supervisor could be started.
            Exception: This LMCache has another interface.
        """
        if any(isinstance(other, PluginModule) for other in getattr(build_context, "modules", ())):
            self._speaks = False
            _log.warning("Second --server-module of runtime plugins has no effect: name one")
            return
        config = _read(build_context)
        for problem in config.problems:
            _log.log(getattr(logging, problem.level.upper(), logging.INFO), "%s", problem.text)
        if config.why_nothing:
            self.turn_off(config.why_nothing)
            _log.warning("No runtime plugins are run: %s", config.why_nothing)
            return
        # Imported late: an import that fails must not end the server.
        from lmcache_plugin_adapter.engine.launcher import RuntimePluginLauncher

        launchers = [
            RuntimePluginLauncher.for_identity(part, part.identity) for part in config.by_rule()
        ]
        given: Any = getattr(build_context.mp_config, "runtime_plugin_config", None)
        taken_over = list(getattr(given, "locations", None) or ())
        if taken_over:
            given.locations = []  # else LMCache's launcher would start each a second time
        try:
            for launcher in launchers:
                launcher.launch_or_raise()
        except BaseException:
            for launcher in launchers:
                launcher.stop_plugins(wait=False)
            if taken_over:
                given.locations = taken_over
                _log.warning("LMCache's own launcher starts --runtime-plugin-locations")
            raise
        self._launchers = launchers
        if taken_over:
            unfiltered = launchers[0].identity.role is None
            which = "all files" if unfiltered else "files named server_* or all_*"
            _log.info("Taken over from LMCache's launcher: --runtime-plugin-locations (%s)", which)

    def turn_off(self, reason: str) -> None:
        """Keep the reason why no plugins run, for ``/status``."""
        self.reason = reason

    def report_status(self) -> dict[str, Any]:
        """Return the plugins' part of ``/status``; never raises, and waits 0.25 s at most."""
        try:
            status = _encodable(self._status())
        except Exception as error:  # noqa: BLE001 - the server's own status must come
            status = {"state": "unknown", "reason": ascii(error), "plugins": []}
        return {STATUS_KEY: status} if self._speaks else {}

    def close(self) -> None:
        """Stop the plugins; wait at most 2 s.

        Plugins with a longer grace period outlive the server, unless its container ends.
        """
        launchers, self._launchers = self._launchers, []
        if not launchers:
            return
        self.turn_off("stopped with the server")
        until = time.monotonic() + CLOSE_SECONDS
        try:
            for launcher in launchers[1:]:
                launcher.stop_plugins(wait=False)
            for launcher in launchers:
                launcher.stop_plugins(timeout=max(until - time.monotonic(), 0.0))
        except Exception as error:  # noqa: BLE001 - the rest of the server closes after us
            _log.warning("Cannot stop runtime plugins: %r; they end with the server", error)

    def _status(self) -> dict[str, Any]:
        launchers = self._launchers
        if not launchers:
            return {"state": "off", "reason": self.reason, "plugins": []}
        answers = [launcher.status(STATUS_SECONDS / len(launchers)) for launcher in launchers]
        known = [answer for answer in answers if answer is not None]
        if len(known) < len(answers):
            reason = "the supervisor does not answer: it starts, ended or is stopped"
            return {"state": "unknown", "reason": reason, "plugins": []}
        state = "stopping" if any(answer.get("stopping") for answer in known) else "running"
        kept = ("version", "supervisor_pid", "identity", "uptime")
        status = {key: known[0].get(key) for key in kept}
        plugins = [plugin for answer in known for plugin in answer.get("plugins") or ()]
        return {"state": state, "reason": None, **status, "plugins": plugins}


def _read(build_context: Any) -> ServerConfig:
    from .config import read_server_config

    mp_config = build_context.mp_config
    given = getattr(mp_config, "runtime_plugin_config", None)
    return read_server_config(
        build_context.config,
        _host_objects(mp_config),
        source="'config' of --server-module",
        lmcache_locations=getattr(given, "locations", None) or (),
        lmcache_parameters=getattr(given, "extra_config", None),
    )


def _host_objects(mp_config: Any) -> dict[str, Any]:
    """Return LMCache's configuration objects by the keys that its launcher gives plugins."""
    for name in _HTTP_SERVER:
        configs = getattr(sys.modules.get(name), _CONFIGS, None)
        if isinstance(configs, dict) and configs.get("mp") is mp_config:
            found = {ours: configs.get(theirs) for theirs, ours in _KEYS.items()}
            return {key: value for key, value in found.items() if value is not None}
    _log.warning(
        "Only 'mp_config' is known of LMCache's configuration: plugins do not find %s in theirs",
        ", ".join(key for key in _KEYS.values() if key != "mp_config"),
    )
    return {"mp_config": mp_config}


def _use_lmcaches_log() -> None:
    """Format this package's records as LMCache's, whose log is the server's only one."""
    lmcache = sys.modules.get("lmcache.logging")
    if lmcache is not None:
        lmcache.init_logger(__name__.partition(".")[0])


def _encodable(value: Any) -> Any:
    r"""Return a status that every JSON encoder accepts: undecodable bytes become ``\xNN``."""
    if isinstance(value, str):
        from lmcache_plugin_adapter.messages.wording import decodable

        return decodable(value)
    if isinstance(value, dict):
        return {key: _encodable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_encodable(item) for item in value]
    return value
