"""Send requests to many supervisors at the same time, with a time limit for their answers."""

from __future__ import annotations

import contextlib
import select
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .connection import Connection, SupervisorError, SupervisorGoneError, check_answer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

    from .search import Address

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
    deadline = None if seconds is None else time.monotonic() + seconds
    replies = [Reply(address) for address, _ in requests]
    poll = select.poll()
    waiting: dict[int, tuple[Connection, Reply]] = {}
    for (address, request), reply in zip(requests, replies, strict=True):
        with _recorded(reply):
            # A queue of connections that stays full belongs to a supervisor that is suspended.
            connection = Connection(address, request, time.monotonic() + 1)
            waiting[connection.fileno()] = connection, reply
            poll.register(connection.fileno(), select.POLLIN)
    while waiting:
        left = None if deadline is None else max(deadline - time.monotonic(), 0.0)
        ready = poll.poll(None if left is None else left * 1000)
        if not ready and not left:
            break
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
    for connection, reply in waiting.values():
        reply.problem = f"{reply.address} does not answer within {seconds:g} s (is it suspended?)"
        reply.timed_out = True
        connection.close()
    return replies


@contextlib.contextmanager
def _recorded(reply: Reply) -> Iterator[None]:
    """Record in ``reply`` why a request failed."""
    try:
        yield
    except SupervisorGoneError:
        pass
    except SupervisorError as error:
        reply.problem = str(error)
