# SPDX-License-Identifier: Apache-2.0
"""The messages between engine and supervisor: one table.

The connection is a stream socket. The engine sends single letters; the
supervisor sends lines, a letter and its value. Some messages carry a
descriptor. The section of the architecture page is generated from
:data:`MESSAGES`. The letters H (hello) and B (bye) begin and end a supervisor's
messages.
"""

from __future__ import annotations


class Message:
    """One row of the table."""

    __slots__ = ("carries", "letter", "meaning", "name", "sender")

    def __init__(self, letter: bytes, name: str, sender: str, carries: str, meaning: str) -> None:
        self.letter = letter
        self.name = name
        self.sender = sender
        self.carries = carries
        self.meaning = meaning


STOP = b"S"
EXITING = b"E"
FAILING = b"F"
CLIENT = b"C"

READY = b"H"
GRACE = b"G"
STOPPED_BY_SIGNAL = b"Q"
FINISHED = b"B"
LOGGING = b"L"

MESSAGES = (
    Message(STOP, "STOP", "engine", "", "Stop all plugins, then exit."),
    Message(EXITING, "EXITING", "engine", "", "The engine exits on its own."),
    Message(FAILING, "FAILING", "engine", "", "An exception ends the engine."),
    Message(
        CLIENT, "CLIENT", "engine", "a socket", "Serve a client of the control protocol there."
    ),
    Message(READY, "READY", "supervisor", "its pid", "The supervisor runs."),
    Message(GRACE, "GRACE", "supervisor", "seconds", "The longest grace period of any plugin."),
    Message(
        STOPPED_BY_SIGNAL,
        "STOPPED_BY_SIGNAL",
        "supervisor",
        "",
        "A signal stops the supervisor: the engine starts no other.",
    ),
    Message(FINISHED, "FINISHED", "supervisor", "", "No plugin process is left; the last message."),
    Message(
        LOGGING,
        "LOGGING",
        "supervisor",
        "a socket",
        "Log the records that arrive there (`log: logging`).",
    ),
)

MOST_DESCRIPTORS = 4
"""How many descriptors either side takes with one read."""

ACCEPTED = b"+"
"""The engine's answer on the socket of :data:`LOGGING` once a thread reads it; else it closes
the socket."""

FIELD_SEPARATOR = b"\x1f"
"""Between the fields of a record on that socket: level, time, name, file, pid, text."""

PROTOCOL = 1
"""Version of the control protocol; each answer carries it."""


def line(message: bytes, value: object = "") -> bytes:
    """Return a message of the supervisor with its value."""
    return message + str(value).encode() + b"\n"


def describe() -> str:
    """Return the table as Markdown, as it stands in the documentation."""
    rows = [
        f"| `{one.letter.decode()}` | `{one.name}` | {one.sender} | {one.carries} | {one.meaning} |"
        for one in MESSAGES
    ]
    return "\n".join(
        ["| letter | name | sender | carries | meaning |", "|---|---|---|---|---|", *rows]
    )


if __name__ == "__main__":
    print(describe())  # `python -m lmcache_plugin_adapter.contract.wire`, for the page
