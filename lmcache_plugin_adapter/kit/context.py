# SPDX-License-Identifier: Apache-2.0
"""The context of a plugin: role, engine and configuration, read from its environment."""

from __future__ import annotations

import os
import sys

from lmcache_plugin_adapter.contract import variables

from .errors import ContextError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import TypeVar

    from lmcache_plugin_adapter.kit.engine_api.address import ApiAddress

    S = TypeVar("S")


def context() -> Context:
    """Return the context of this process.

    Raises:
        ContextError: The process was not started as a plugin.
    """
    return Context.from_environ()


class Context:
    """The plugin's name, its engine process and LMCache's configuration.

    Attributes:
        role: ``SCHEDULER``, ``WORKER`` or ``SERVER``; empty if the host has no roles.
        worker_id: Rank of the worker in its replica; -1 on the scheduler.
        worker_count: Number of workers in the replica.
        dp_rank: Index of the data-parallel replica.
        dp_size: Number of data-parallel replicas.
        engine_pid: The engine process; None under LMCache's built-in launcher.
        name: The plugin's name, as in the log and in the settings.
        host: Name of this host (in Kubernetes: of the pod).
    """

    def __init__(
        self,
        *,
        role: str,
        worker_id: int,
        worker_count: int,
        name: str,
        dp_rank: int = 0,
        dp_size: int = 1,
        engine_pid: int | None = None,
        host: str = "",
        config: Mapping[str, object] | None = None,
        config_file: str | None = None,
        config_text: str | None = None,
        path: str = "",
        ending_file: str | None = None,
    ) -> None:
        self.role = role
        self.worker_id = worker_id
        self.worker_count = worker_count
        self.dp_rank = dp_rank
        self.dp_size = dp_size
        self.engine_pid = engine_pid
        self.name = name
        self.host = host or os.uname().nodename
        self._config = config
        self._config_file = config_file
        self._config_text = config_text
        self._path = path
        self._ending_file = ending_file

    @classmethod
    def from_environ(
        cls, environ: Mapping[str, str] | None = None, path: str | None = None
    ) -> Context:
        """Read the variables of the plugin contract; an older name counts if the newer is not set.

        Args:
            environ: The environment; None: the environment of this process.
            path: The plugin's file; None: ``sys.argv[0]``.

        Raises:
            ContextError: A variable is missing or has an invalid value.
        """
        found = os.environ if environ is None else environ
        path = sys.argv[0] if path is None else path

        def text(name: str) -> str | None:
            value = found.get(name)
            return found.get(variables.OLDER_NAMES.get(name, "")) if value is None else value

        def number(name: str, default: int) -> int:
            value = text(name)
            try:
                return default if value is None else int(value)
            except ValueError:
                raise ContextError(
                    f"cannot read {name}: found {value!r}, accepted is a whole number"
                ) from None

        role = text(variables.ROLE)
        if role is None:
            raise ContextError(
                f"not started by LMCache: {variables.ROLE} is not set; "
                f"try it with 'lmcache-plugins run {path}'"
            )
        return cls(
            role=role.upper(),
            worker_id=number(variables.WORKER_ID, -1),
            worker_count=number(variables.WORKER_COUNT, 1),
            dp_rank=number(variables.DP_RANK, 0),
            dp_size=number(variables.DP_SIZE, 1),
            engine_pid=number(variables.ENGINE_PID, 0) or None,
            name=text(variables.NAME) or os.path.splitext(os.path.basename(path))[0],
            config_file=text(variables.CONFIG_FILE),
            config_text=text(variables.CONFIG),
            path=path,
            ending_file=text(variables.ENDING_FILE),
        )

    @property
    def ending(self) -> str:
        """The supervisor's exit reason, once the plugin is to stop.

        ``closing``: the engine closes in order; ``failed``: an exception ended it; ``died``: its
        process exited without closing; ``replaced``: it replaced itself with another program;
        ``told``: the supervisor received a signal. Empty: only this plugin stops, or the reason
        is unknown.
        """
        if not self._ending_file:
            return ""
        try:
            with open(self._ending_file, encoding="ascii", errors="replace") as file:
                return file.read(64).strip()
        except OSError:
            return ""

    @property
    def label(self) -> str:
        """The engine process for messages: ``scheduler``, ``worker 1``, ``dp 1 worker 0``."""
        words = [f"dp {self.dp_rank}"] if self.dp_size > 1 else []
        words.append(self.role.lower() or "engine")
        if self.role == "WORKER":
            words.append(str(self.worker_id))
        return " ".join(words)

    @property
    def names(self) -> tuple[str, ...]:
        """The names that the settings may use for the plugin, from general to specific."""
        parts = self._path.split("/")
        names = [os.path.splitext(parts[-1])[0], self.name]
        names += ["/".join(parts[i:]) for i in range(len(parts) - 1, -1, -1)]
        return tuple(dict.fromkeys(name for name in names if name))

    @property
    def config(self) -> Mapping[str, object]:
        """LMCache's configuration, read at the first use; empty if there is none.

        Raises:
            ContextError: The configuration is not a JSON object.
        """
        if self._config is None:
            self._config = _read_config(self._config_file, self._config_text)
        return self._config

    @property
    def internal_api(self) -> ApiAddress | None:
        """The address of this engine process's internal API server; None: it has none.

        On a multiprocess server: the address of its HTTP API.
        """
        from lmcache_plugin_adapter.kit.engine_api.address import internal_api

        return internal_api(self.config, self.role, self.worker_id)

    @property
    def raw_settings(self) -> Mapping[str, object]:
        """The plugin's own section as written in the configuration; empty if there is none."""
        from lmcache_plugin_adapter.kit.settings.section import as_mapping

        return as_mapping(*self._section())

    @property
    def settings_key(self) -> str:
        """The full key of the plugin's own section, for messages."""
        return self._section()[0]

    def settings(self, kind: type[S]) -> S:
        """Return the plugin's own section, validated.

        The section is ``extra_config.runtime_plugins.plugins.NAME.settings`` in ``lmcache.yaml``.
        Each problem is printed in one line with its full key. An invalid value is replaced by its
        default.

        Args:
            kind: A ``msgspec.Struct`` class: fields with types, defaults and limits.

        Raises:
            SettingsError: A required value is missing or invalid, or msgspec is not installed.
        """
        from lmcache_plugin_adapter.kit.settings.section import read_settings

        return read_settings(*self._section(), kind)

    def _section(self) -> tuple[str, object]:
        from lmcache_plugin_adapter.kit.settings.section import find_section

        return find_section(self.config, self.name, self.names)


def _read_config(path: str | None, text: str | None) -> Mapping[str, object]:
    import json

    source = variables.CONFIG
    if path:
        try:
            with open(path, encoding="utf-8", errors="surrogateescape") as file:
                text, source = file.read(), path
        except OSError as error:
            if text is None:
                raise ContextError(f"cannot read {path!r}: {error.strerror}") from error
    if not text:
        return {}
    try:
        config = json.loads(text)
    except ValueError as error:
        raise ContextError(f"cannot read {source}: {error}") from error
    if not isinstance(config, dict):
        raise ContextError(f"cannot read {source}: it is not a JSON object")
    return config
