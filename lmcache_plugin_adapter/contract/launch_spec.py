"""What an engine hands to its supervisor: one header line of JSON, then LMCache's configuration."""

from __future__ import annotations

import json

from .frozen import frozen
from .identity import ProcessIdentity, Role


@frozen
class LaunchSpec:
    """Everything the plugins of one engine process depend on.

    Attributes:
        identity: Who the engine process is.
        locations: ``runtime_plugin_locations`` as the configuration has it,
            not yet validated.
        config_json: LMCache's whole configuration as JSON text.
        engine_pid: The engine process.
        run_id: Random token of this engine process; marks all that its
            plugins start.
        python: The interpreter that runs the engine.
        notes: ``(level, text)`` pairs that the engine wants said in the log.
        metrics_module: The engine's ``prometheus_client/mmap_dict.py``, where
            metrics are asked for and it has one; else empty.
        import_path: The engine's ``sys.path``, where installed plugins are
            looked for.
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
        """Serialise; what is not JSON in ``locations`` becomes its text."""
        header = {
            "identity": vars(self.identity),
            "locations": self.locations,
            "engine_pid": self.engine_pid,
            "run_id": self.run_id,
            "python": self.python,
            "notes": self.notes,
            "metrics_module": self.metrics_module,
            "import_path": self.import_path,
        }
        return (
            json.dumps(header, default=str).encode()
            + b"\n"
            + self.config_json.encode("utf-8", "surrogatepass")
        )

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
            return cls(
                identity=ProcessIdentity(**{**identity, "role": Role.read(identity["role"])}),
                locations=header["locations"],
                config_json=config.decode("utf-8", "surrogatepass"),
                engine_pid=header["engine_pid"],
                run_id=header["run_id"],
                python=header["python"],
                notes=tuple((str(level), str(text)) for level, text in header["notes"]),
                metrics_module=header["metrics_module"],
                import_path=tuple(header["import_path"]),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"cannot read launch spec: {error!r}") from error
