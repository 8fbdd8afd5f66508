"""One thing that is wrong, said in one line, while the rest goes on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Problem:
    """Something found wrong that does not stop the rest.

    Attributes:
        level: ``error`` (something asked for cannot be done), ``warning`` (it
            is probably not what was meant) or ``note`` (worth knowing).
        text: One line without level or newline: what is wrong, what follows
            from it and how to mend it.
    """

    level: Level
    text: str
