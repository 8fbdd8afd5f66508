# SPDX-License-Identifier: Apache-2.0
"""The tests' own servers start, pause, and come back on their port."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from servers import Server, debian_binary, debian_environment, listens


@pytest.mark.parametrize(
    ("package", "program", "arguments"),
    [
        ("prometheus-pushgateway", None, ["--web.listen-address=127.0.0.1:{port}"]),
        (
            "prometheus",
            None,
            [
                "--config.file=/dev/null",
                "--storage.tsdb.path={data}/tsdb",
                "--web.listen-address=127.0.0.1:{port}",
            ],
        ),
        (
            "victoria-metrics",
            None,
            ["-storageDataPath={data}/vm", "-httpListenAddr=127.0.0.1:{port}"],
        ),
        (
            "etcd-server",
            "etcd",
            [
                "--data-dir={data}/etcd",
                "--listen-client-urls=http://127.0.0.1:{port}",
                "--advertise-client-urls=http://127.0.0.1:{port}",
                "--listen-peer-urls=http://127.0.0.1:{peer}",
                "--initial-advertise-peer-urls=http://127.0.0.1:{peer}",
                "--initial-cluster=default=http://127.0.0.1:{peer}",
            ],
        ),
    ],
)
def test_a_server_answers_and_comes_back(
    tmp_path: Path, package: str, program: str | None, arguments: list[str]
) -> None:
    """An answer of any kind, none while it is stopped, and an answer again."""
    command = [debian_binary(package, program), *arguments]
    server = Server(command, tmp_path / "server", env=debian_environment(package), ports=["peer"])
    with server:
        assert httpx.get(server.url, timeout=5).status_code
        server.stop()
        assert not listens(server.port)
        server.start()
        server.pause()
        with pytest.raises(httpx.TimeoutException):
            httpx.get(server.url, timeout=0.2)
        server.resume()
        assert httpx.get(server.url, timeout=5).status_code
