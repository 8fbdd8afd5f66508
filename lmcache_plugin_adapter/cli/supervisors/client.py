# SPDX-License-Identifier: Apache-2.0
"""Send requests to many supervisors at the same time, with a time limit for their answers."""

from __future__ import annotations

import contextlib
import os
import select
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .connection import Connection, SupervisorError, SupervisorGoneError, check_answer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

    from .search import Address

FOREIGN_SECONDS = 120.0
"""Time limit for any answer of another user's supervisor, whose process may be anything."""

ANSWER_SECONDS = 3.0
"""Time limit for an answer that does not wait for plugins."""


@dataclass
class Reply:
    """The outcome of one request.

    Attributes:
        address: The supervisor.
        answer: Its answer; None if there is none.
        problem: Why there is no answer, or why it is negative; None also if the
            supervisor has exited meanwhile.
        timed_out: Whether the supervisor took the request and did not answer in time.
    """

    address: Address
    answer: dict[str, Any] | None = None
    problem: str | None = None
    timed_out: bool = False


def request_all(
    addresses: Sequence[Address],
    request: Mapping[str, Any],
    seconds: float | None = ANSWER_SECONDS,
) -> list[Reply]:
    """Send the same request to all supervisors; return the replies in the same order.

    Args:
        addresses: The supervisors.
        request: The request.
        seconds: Time limit for the answers; None: no limit.
    """
    return request_each([(address, request) for address in addresses], seconds)


def request_each(
    requests: Sequence[tuple[Address, Mapping[str, Any]]], seconds: float | None = ANSWER_SECONDS
) -> list[Reply]:
    """Send each supervisor its own request; otherwise as :func:`request_all`."""
    began = time.monotonic()
    deadline = None if seconds is None else began + seconds
    replies = [Reply(address) for address, _ in requests]

    def is_foreign(reply: Reply) -> bool:
        return reply.address.uid != os.getuid()

    poll = select.poll()
    waiting: dict[int, tuple[Connection, Reply]] = {}
    for (address, request), reply in zip(requests, replies, strict=True):
        with _recorded(reply):
            # A queue of connections that stays full belongs to a supervisor that is suspended.
            connection = Connection(address, request, time.monotonic() + 1)
            waiting[connection.fileno()] = connection, reply
            poll.register(connection.fileno(), select.POLLIN)
    while waiting:
        due = deadline
        if due is None and any(is_foreign(reply) for _, reply in waiting.values()):
            due = began + FOREIGN_SECONDS
        left = None if due is None else max(due - time.monotonic(), 0.0)
        ready = poll.poll(None if left is None else left * 1000)
        if not ready and not left:
            for fd, (connection, reply) in list(waiting.items()):
                if deadline is not None or is_foreign(reply):
                    limit = FOREIGN_SECONDS if seconds is None else seconds
                    why = f"does not answer within {limit:g} s (is it suspended?)"
                    reply.problem = f"{reply.address} {why}"
                    reply.timed_out = seconds is not None
                    poll.unregister(fd)
                    connection.close()
                    del waiting[fd]
            continue
        for fd, _ in ready:
            connection, reply = waiting[fd]
            with _recorded(reply):
                messages = connection.receive()
                if not messages and not connection.ended:
                    continue
                if messages:
                    reply.answer = check_answer(messages[0])
            poll.unregister(fd)
            connection.close()
            del waiting[fd]
    return replies


def plugins_of(answer: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the plugins that an answer names; each has a name and a state."""
    plugins = answer.get("plugins")
    return [
        plugin
        for plugin in (plugins if isinstance(plugins, list) else ())
        if isinstance(plugin, dict)
        and isinstance(plugin.get("name"), str)
        and isinstance(plugin.get("state"), str)
    ]


@contextlib.contextmanager
def _recorded(reply: Reply) -> Iterator[None]:
    """Record in ``reply`` why a request failed."""
    try:
        yield
    except SupervisorGoneError:
        pass
    except SupervisorError as error:
        reply.problem = str(error)
