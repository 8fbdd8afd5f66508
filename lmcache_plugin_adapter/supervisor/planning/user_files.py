# SPDX-License-Identifier: Apache-2.0
"""Files for plugins of other users: copies of the configuration, and the reason for a SIGTERM.

Only the engine's user can enter the runtime directory. These files lie beside it, in a
directory where others can open a file that is theirs, but can list and create none.
"""

from __future__ import annotations

import os

from lmcache_plugin_adapter.contract.frozen import replaced
from lmcache_plugin_adapter.contract.run_token import engine_is_gone
from lmcache_plugin_adapter.contract.runtime_dir import (
    ENDING_NAME,
    candidates,
    is_users_directory,
    make_users_directory,
)
from lmcache_plugin_adapter.contract.variables import CONFIG_FILE, ENDING_FILE
from lmcache_plugin_adapter.messages.problem import Problem
from lmcache_plugin_adapter.planner.plugin_environment import write_config_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from lmcache_plugin_adapter.contract.planned_plugin import PlannedPlugin


class UserFiles:
    """Write the files of one supervisor's plugins.

    Args:
        environ: The engine's environment.
        instance: The name of the supervisor's runtime directory.
        config: The text of the configuration file.
    """

    def __init__(self, environ: Mapping[str, str], instance: str, config: str) -> None:
        self._environ = environ
        self._instance = instance
        self._config = config
        self._of_users: dict[tuple[int, int], dict[bytes, bytes]] = {}
        self.problems: list[Problem] = []

    def add_to(self, plugin: PlannedPlugin) -> PlannedPlugin:
        """Return a plugin with the variables that name its user's files."""
        if plugin.credentials is None or plugin.credentials[0] == os.geteuid():
            return plugin
        uid, gid, groups = plugin.credentials
        if (uid, gid) not in self._of_users:
            self._of_users[uid, gid] = self._write(uid, gid, {gid, *groups})
        files = self._of_users[uid, gid]
        unreadable = tuple(
            name for name in map(str.encode, (CONFIG_FILE, ENDING_FILE)) if name not in files
        )
        return replaced(
            plugin,
            environment={**files, **plugin.environment},
            hidden=(*plugin.hidden, *unreadable),
        )

    def _write(self, uid: int, gid: int, groups: set[int]) -> dict[bytes, bytes]:
        directory = next(_usable(self._environ, uid, groups), None)
        if directory is None:
            text = f"no runtime directory that user {uid} can enter"
            problem = f"Plugins of user {uid} run without {CONFIG_FILE}: {text}"
            self.problems.append(Problem("warning", problem))
            return {}
        ending = f"{directory}/{self._instance}.{ENDING_NAME}"
        try:
            os.unlink(ending)
        except OSError:
            pass  # no previous supervisor has written one
        name = f"{self._instance}.{uid}.{gid}.json"
        path, problems = write_config_file(directory, name, self._config, (uid, gid))
        self.problems += problems
        files = {ENDING_FILE.encode(): os.fsencode(ending)}
        if path is not None:
            files[CONFIG_FILE.encode()] = os.fsencode(path)
        return files


def remove_stale_user_files(environ: Mapping[str, str]) -> None:
    """Remove the files of supervisors that were killed together with their engines."""
    for directory in filter(is_users_directory, _directories(environ)):
        for name in os.listdir(directory):
            if engine_is_gone(".".join(name.split(".")[:4])):
                try:
                    os.unlink(f"{directory}/{name}")
                except OSError:
                    continue  # another one removes it, too


def _directories(environ: Mapping[str, str]) -> Iterator[str]:
    return (f"{root}.users" for root in candidates(environ))


def _usable(environ: Mapping[str, str], uid: int, groups: set[int]) -> Iterator[str]:
    """Yield the directories that a user can enter, created if missing."""
    for path in _directories(environ):
        try:
            make_users_directory(path)
        except OSError:
            continue
        if is_users_directory(path) and _may_enter(os.path.dirname(path), uid, groups):
            yield path


def _may_enter(path: str, uid: int, groups: set[int]) -> bool:
    """Whether a user may enter a directory and all above it."""
    found = os.stat(path)
    bit = 0o100 if found.st_uid == uid else 0o010 if found.st_gid in groups else 0o001
    above = os.path.dirname(path)
    return bool(found.st_mode & bit) and (above == path or _may_enter(above, uid, groups))
