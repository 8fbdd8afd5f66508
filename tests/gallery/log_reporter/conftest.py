# SPDX-License-Identifier: Apache-2.0
"""What tests of the log reporter share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from log_receivers import Loki


@pytest.fixture
def loki() -> Iterator[Loki]:
    """A strict receiver."""
    receiver = Loki()
    receiver.start()
    yield receiver
    receiver.stop()
