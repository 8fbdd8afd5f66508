# SPDX-License-Identifier: Apache-2.0
"""The real-engine ring: vLLM serving on a CPU with LMCache; ``ring`` here installs and runs it."""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

if not all(importlib.util.find_spec(name) for name in ("vllm", "lmcache")):
    collect_ignore_glob = ["test_*"]

# A job in the background of a script ignores SIGINT, and its servers would, too.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model, made once for all runs of the ring."""
    from tiny_model import make_tiny_model

    home = os.environ.get("RING_HOME") or str(tmp_path_factory.mktemp("ring"))
    return make_tiny_model(Path(home) / "model")
