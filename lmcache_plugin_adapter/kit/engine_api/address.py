# SPDX-License-Identifier: Apache-2.0
"""The address of a plugin's own engine, by the rules of LMCache's internal API server."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    import httpx

_PREFIX = "internal_api_server_"
PORT_START = 6999
HOST = "127.0.0.1"
_ANY = {"0.0.0.0": HOST, "": HOST, "::": "::1"}  # noqa: S104 - nothing listens here


class ApiAddress:
    """An HTTP address: host and port, or a unix socket.

    Attributes:
        url: The beginning of every URL, without a ``/`` at its end.
        socket: Path of the unix socket, or None.
        port: The port; with a socket, the number in its path.
    """

    def __init__(self, host: str, port: int, socket: str | None = None) -> None:
        host = _ANY.get(host, host)
        bracketed = f"[{host}]" if ":" in host else host
        self.url = "http://localhost" if socket else f"http://{bracketed}:{port}"
        self.socket = socket
        self.port = port

    def __repr__(self) -> str:
        return f"ApiAddress({self})"

    def __str__(self) -> str:
        return f"unix:{self.socket}" if self.socket else self.url

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ApiAddress) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    def client(self, timeout: float = 5.0) -> httpx.Client:
        """Return an httpx client for the address, without proxies.

        Args:
            timeout: Seconds for connecting, and for each read and write.
        """
        import ssl

        import httpx

        # The API has no TLS: a context without certificates saves a megabyte of memory.
        verify = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        transport = httpx.HTTPTransport(uds=self.socket, verify=verify)
        return httpx.Client(
            base_url=self.url, timeout=timeout, transport=transport, trust_env=False
        )

    def listens_in(self, pid: int) -> bool | None:
        """Return whether the process ``pid`` listens here.

        If several engines share a host, another engine may have taken the port.

        Returns:
            None if this is unknown, because the process belongs to another user.
        """
        from .listening import listens  # late: few plugins use it

        return listens(pid, self.port, self.socket)

    def is_taken_from(self, pid: int) -> bool:
        """Return whether another process than ``pid`` listens here, and answers in its place.

        False also if no process listens (yet), and if this is unknown.
        """
        from .listening import others_listen

        return others_listen(pid, self.port, self.socket)


def internal_api(config: Mapping[str, object], role: str, worker_id: int) -> ApiAddress | None:
    """Return the address of the engine process's internal API server; None: it has none.

    Args:
        config: LMCache's configuration.
        role: ``SCHEDULER`` or ``WORKER``; any other means the HTTP API of a multiprocess server.
        worker_id: The worker's rank.
    """
    if role not in ("SCHEDULER", "WORKER"):
        return _server_api(config)
    if not config.get(f"{_PREFIX}enabled"):
        return None
    # A scheduler with its own lookup has an engine with the id of worker 0.
    own_engine = role == "WORKER" or config.get("enable_scheduler_bypass_lookup") is True
    index = 1 + max(worker_id, 0) if own_engine else 0
    include = config.get(f"{_PREFIX}include_index_list")
    if isinstance(include, (list, tuple)) and include and index not in include:
        return None
    start = config.get(f"{_PREFIX}port_start")
    host = config.get(f"{_PREFIX}host")
    prefix = config.get(f"{_PREFIX}socket_path_prefix")
    port = (start if isinstance(start, int) else PORT_START) + index
    return ApiAddress(
        host if isinstance(host, str) else HOST, port, f"{prefix}_{port}" if prefix else None
    )


def _server_api(config: Mapping[str, object]) -> ApiAddress | None:
    """Return the address of a multiprocess server (``/healthcheck``, ``/status``)."""
    http = config.get("http_config")
    if not isinstance(http, dict) or not isinstance(http.get("http_port"), int):
        return None
    return ApiAddress(str(http.get("http_host") or HOST), http["http_port"])
