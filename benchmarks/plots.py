"""Pictures of what was measured."""

from __future__ import annotations

from pathlib import Path

from .results import Results


def draw(results: Results, directory: Path) -> None:
    """Draw what there is."""
    del results, directory
