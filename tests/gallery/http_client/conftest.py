# SPDX-License-Identifier: Apache-2.0
"""A certificate for servers of the tests."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path

import pytest


@pytest.fixture
def tls(tmp_path: Path) -> ssl.SSLContext:
    """A certificate that signed itself."""
    both = tmp_path / "both.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", "/CN=test", "-out", str(both), "-keyout", str(both) + ".key"),
        ],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(both, str(both) + ".key")
    return context
