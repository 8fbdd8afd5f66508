# SPDX-License-Identifier: Apache-2.0
"""Inputs that fuzzing found pass, and so do a few new ones."""

from __future__ import annotations

from pathlib import Path

import pytest
from fuzz.targets import TARGETS
from hypothesis import given, settings
from hypothesis import strategies as st

CORPUS = Path(__file__).parents[1] / "fuzz" / "corpus"
FOUND = sorted(path for path in CORPUS.glob("*/*") if path.is_file())


@pytest.mark.parametrize("path", FOUND, ids=[f"{p.parent.name}-{p.name}" for p in FOUND])
def test_what_was_found(path: Path) -> None:
    """Each input that once broke a promise passes."""
    TARGETS[path.parent.name](path.read_bytes())


@pytest.mark.parametrize("target", TARGETS)
def test_a_little_more(target: str) -> None:
    """A few new inputs pass; ``tests/fuzz/run.py`` tries many."""

    @settings(max_examples=150)
    @given(st.binary(max_size=300))
    def run(data: bytes) -> None:
        TARGETS[target](data)

    run()
