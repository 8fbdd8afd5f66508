# SPDX-License-Identifier: Apache-2.0
"""The message that starts a supervisor: a header line of JSON, then LMCache's configuration."""

from __future__ import annotations

import json

from .frozen import frozen
from .identity import ProcessIdentity, Role


@frozen
class LaunchSpec:
    """Everything that the plugins of one engine process depend on.

    Attributes:
        identity: The identity of the engine process.
        locations: ``runtime_plugin_locations`` as the configuration has it, not validated.
        config_json: LMCache's whole configuration as JSON text.
        engine_pid: The engine process.
        run_id: Random run token of this engine process, in the environment of all
            processes that its plugins start.
        python: The interpreter that runs the engine.
        notes: ``(level, text)`` pairs that the supervisor logs for the engine.
        metrics_module: The engine's ``prometheus_client/mmap_dict.py``; empty if
            metrics are off or the engine does not have it.
        import_path: The engine's ``sys.path``, which holds the installed plugins.
    """

    identity: ProcessIdentity
    locations: object
    config_json: str
    engine_pid: int
    run_id: str
    python: str
    notes: tuple[tuple[str, str], ...] = ()
    metrics_module: str = ""
    import_path: tuple[str, ...] = ()

    def to_bytes(self) -> bytes:
        """Serialise the spec; a location that JSON cannot express becomes its text."""
        header = {**vars(self), "identity": vars(self.identity)}
        del header["config_json"]
        config = self.config_json.encode("utf-8", "surrogatepass")
        return json.dumps(header, default=str).encode() + b"\n" + config

    @classmethod
    def from_bytes(cls, data: bytes) -> LaunchSpec:
        """Read what :meth:`to_bytes` wrote.

        Raises:
            ValueError: ``data`` is not a launch spec.
        """
        head, newline, config = data.partition(b"\n")
        if not newline:
            raise ValueError("cannot read launch spec: no header line")
        header = json.loads(head)
        try:
            identity = header["identity"]
            header["identity"] = ProcessIdentity(
                **{**identity, "role": Role.read(identity["role"])}
            )
            header["notes"] = tuple((str(level), str(text)) for level, text in header["notes"])
            header["import_path"] = tuple(header["import_path"])
            return cls(**header, config_json=config.decode("utf-8", "surrogatepass"))
        except (KeyError, TypeError) as error:
            raise ValueError(f"cannot read launch spec: {error!r}") from error
