# SPDX-License-Identifier: Apache-2.0
"""What all tests of the gallery share: no proxy on loopback, and a state directory of their own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# The servers of tests are on loopback, and no proxy leads there.
for _name in ("no_proxy", "NO_PROXY"):
    os.environ[_name] = ",".join(filter(None, [os.environ.get(_name), "127.0.0.1,localhost"]))


@pytest.fixture(autouse=True)
def _state_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the state of plugins away from other tests and from this user's."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state-home"))
