# SPDX-License-Identifier: Apache-2.0
"""A stand-in engine: a process that owns a launcher and waits, as an engine without requests.

``lmcache-plugins run`` starts this file by its path. It reads one line of JSON from stdin
(see :class:`Assignment`) and runs the plugins until SIGINT, SIGTERM, SIGHUP or the end of stdin,
which also comes when ``run`` is killed.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import dataclass

if __name__ == "__main__":
    # Python puts this file's directory first on the path, where its modules hide others of the
    # same name. The parent of the package comes last: 'run' may have found the package in its
    # working directory.
    _room = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry) != _room]
    sys.path.append(os.path.dirname(os.path.dirname(_room)))

from lmcache_plugin_adapter.contract.identity import ProcessIdentity, Role
from lmcache_plugin_adapter.linux.event_loop import Loop


@dataclass(frozen=True)
class Assignment:
    """The configuration and identity of a stand-in engine.

    It is also the configuration that the launcher gets.

    Attributes:
        identity: The identity of the engine process.
        runtime_plugin_locations: As configured.
        extra_config: As configured.
        config_json: LMCache's whole configuration as JSON text.
        serves: Whether to serve the HTTP APIs of an engine.
    """

    identity: ProcessIdentity
    runtime_plugin_locations: object
    extra_config: object
    config_json: str
    serves: bool = False

    def to_json(self) -> str:
        """Return LMCache's configuration as JSON text."""
        return self.config_json

    def to_line(self) -> bytes:
        """Serialise as one line."""
        fields = {**vars(self), "identity": vars(self.identity)}
        return json.dumps(fields).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> Assignment:
        """Return the assignment that :meth:`to_line` serialised."""
        fields = json.loads(line)
        identity = fields.pop("identity")
        role = Role.read(identity.pop("role"))
        return cls(identity=ProcessIdentity(role=role, **identity), **fields)


def main() -> int:
    """Run plugins until a signal or the end of stdin; return the exit status."""
    loop = Loop(on_error=_raise)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.on_signal(number, loop.stop)
    line = sys.stdin.buffer.readline()
    if not line.endswith(b"\n"):
        return 0  # 'run' has exited
    loop.watch(sys.stdin.fileno(), loop.stop)
    return _run(Assignment.from_line(line), loop)


def _run(assignment: Assignment, loop: Loop) -> int:
    from lmcache_plugin_adapter.engine.launcher import LaunchError, RuntimePluginLauncher

    if assignment.serves:
        from lmcache_plugin_adapter.hosts.standin_api import serve

        serve(assignment.identity, assignment.config_json)
    launcher = RuntimePluginLauncher.for_identity(assignment, assignment.identity)
    try:
        launcher.launch_or_raise()
    except LaunchError as error:
        print(f"error: {assignment.identity.label}: {error}", file=sys.stderr)
        return 1
    loop.run()
    launcher.stop_plugins()
    return 0


def _raise(error: BaseException) -> None:
    raise error


if __name__ == "__main__":
    sys.exit(main())
