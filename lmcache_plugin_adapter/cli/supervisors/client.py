"""Find the supervisors of this host and ask them, all at once.

What stands in a runtime directory is not trusted: owner, kind and peer are
checked before anything is sent, links are never followed, answers are bounded
in time and size. A supervisor that ends meanwhile is no error: it is gone.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import select
import socket
import stat
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lmcache_plugin_adapter.contract.runtime_dir import CONTROL_SOCKET, candidates, remove_instance
from lmcache_plugin_adapter.contract.wire import PROTOCOL
from lmcache_plugin_adapter.linux.peer import peer_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

ANSWER_SECONDS = 3.0
"""How long a supervisor may take for an answer that waits for nothing."""

_ANSWER_BYTES = 16 << 20
_RETRY_SECONDS = 0.01
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_INSTANCE = re.compile(r"\d+\.\d+\.\d+\.[0-9a-f]+\.[\w-]+")
_USERS = re.compile(r"lmcache-plugins-(\d+)")
_USERS_ROOTS = ("/run", "/dev/shm", "/tmp")  # noqa: S108 - owner and mode are checked


class GoneError(Exception):
    """The supervisor has ended; what it left is cleared away."""


class RefusedError(Exception):
    """A supervisor, or what stands in its place, is not talked to; the text says why."""


@dataclass
class Found:
    """The place of a supervisor.

    Attributes:
        path: Its directory.
        uid: The user whose supervisor it is.
        peer_pid: Its pid as seen from here, once connected.
    """

    path: str
    uid: int
    peer_pid: int = 0


@dataclass
class Reply:
    """What came of asking one supervisor.

    Attributes:
        found: Whom.
        answer: What it said; None if nothing came.
        problem: Why nothing came, or why it says no; None also where it has ended meanwhile.
    """

    found: Found
    answer: dict[str, Any] | None = None
    problem: str | None = None


@dataclass
class Search:
    """What was found.

    Attributes:
        found: Supervisors, or what looks like them.
        problems: What was passed over, and why.
        places: Where was looked.
    """

    found: list[Found] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    places: list[str] = field(default_factory=list)


def find(environ: Mapping[str, str]) -> Search:
    """Look for supervisors of this user; for root's, of all users."""
    search = Search()
    own = os.getuid()
    for path in dict.fromkeys(candidates(environ)):
        search.places.append(path)
        _look(search, path, None if own == 0 else own)
    if own == 0:
        for path, uid in _roots_of_users():
            if path not in search.places:
                search.places.append(path)
                _look(search, path, uid)
    return search


def _roots_of_users() -> Iterator[tuple[str, int]]:
    for parent in _USERS_ROOTS:
        with contextlib.suppress(OSError):
            for name in sorted(os.listdir(parent)):
                match = _USERS.fullmatch(name)
                if match is not None:
                    yield f"{parent}/{name}", int(match[1])


def _look(search: Search, root: str, uid: int | None) -> None:
    """Add what is in one runtime directory; ``uid`` is whose it must be, None: anybody's."""
    try:
        fd = os.open(root, _DIRECTORY)
    except FileNotFoundError:
        return
    except OSError as error:
        search.problems.append(f"cannot look in '{root}': {error.strerror}")
        return
    try:
        about = os.fstat(fd)
        if uid not in (None, about.st_uid):
            reason = f"it belongs to user {about.st_uid}, not to user {uid}"
        elif about.st_mode & 0o077:
            reason = f"others may enter it: chmod 700 '{root}'"
        else:
            names = sorted(filter(_INSTANCE.fullmatch, os.listdir(fd)))
            search.found += [Found(f"{root}/{name}", about.st_uid) for name in names]
            return
        search.problems.append(f"passed over '{root}': {reason}")
    finally:
        os.close(fd)


def ask_all(
    found: Sequence[Found],
    request: Mapping[str, Any],
    seconds: float | None = ANSWER_SECONDS,
) -> list[Reply]:
    """Ask all of them the same at the same time; return replies in the order of ``found``.

    Args:
        found: Whom.
        request: What.
        seconds: How long an answer may take; None: as long as it takes.
    """
    return ask_each([(one, request) for one in found], seconds)


def ask_each(
    requests: Sequence[tuple[Found, Mapping[str, Any]]], seconds: float | None = ANSWER_SECONDS
) -> list[Reply]:
    """Ask each of them something of its own; otherwise as :func:`ask_all`."""
    deadline = None if seconds is None else time.monotonic() + seconds
    replies = [Reply(found) for found, _ in requests]
    poll = select.poll()
    waiting: dict[int, tuple[Conversation, Reply]] = {}
    for (found, request), reply in zip(requests, replies, strict=True):
        with _noted(reply):
            # A queue of connections that stays full belongs to one that is stopped.
            until = min(deadline or time.monotonic() + ANSWER_SECONDS, time.monotonic() + 1)
            conversation = Conversation(found, request, until)
            waiting[conversation.fileno()] = conversation, reply
            poll.register(conversation.fileno(), select.POLLIN)
    while waiting:
        left = None if deadline is None else max(deadline - time.monotonic(), 0.0)
        ready = poll.poll(None if left is None else left * 1000)
        if not ready and not left:
            break
        for fd, _ in ready:
            conversation, reply = waiting[fd]
            with _noted(reply):
                lines = conversation.receive()
                if not lines and not conversation.ended:
                    continue
                if lines:
                    reply.answer = check_answer(lines[0])
            poll.unregister(fd)
            conversation.close()
            del waiting[fd]
    for conversation, reply in waiting.values():
        reply.problem = f"{_who(reply.found)} does not answer within {seconds:g} s (is it stopped?)"
        conversation.close()
    return replies


class Conversation:
    """A connection to a supervisor, and one request on it.

    Args:
        found: Whom.
        request: What.
        deadline: Until when its queue of connections may stay full.

    Raises:
        GoneError: It has ended.
        RefusedError: It cannot be talked to.
    """

    def __init__(self, found: Found, request: Mapping[str, Any], deadline: float) -> None:
        self.found = found
        self.ended = False
        self._data = bytearray()
        self._socket = _connect(found, deadline)
        try:
            self._socket.sendall(json.dumps(request).encode() + b"\n")
        except BlockingIOError:
            self.close()
            raise RefusedError("the request is too long") from None
        except OSError:
            pass  # it may have said why before it ended the connection

    def fileno(self) -> int:
        """Return the descriptor to wait for."""
        return self._socket.fileno()

    def receive(self) -> list[dict[str, Any]]:
        """Return the messages that have arrived; :attr:`ended` tells when no more will.

        Raises:
            RefusedError: What arrives is no answer.
        """
        try:
            part = self._socket.recv(1 << 20)
        except BlockingIOError:
            return []
        except OSError:
            part = b""
        self.ended = not part
        self._data += part
        if len(self._data) > _ANSWER_BYTES:
            raise RefusedError(f"{_who(self.found)} answers without end")
        *lines, rest = self._data.split(b"\n")
        self._data = bytearray(rest)
        return [_decode(bytes(line), self.found) for line in lines]

    def close(self) -> None:
        """End the connection."""
        self._socket.close()


def check_answer(message: dict[str, Any]) -> dict[str, Any]:
    """Return an answer that is of our protocol and says yes.

    Raises:
        RefusedError: It is not.
    """
    protocol = message.get("protocol")
    if protocol != PROTOCOL:
        said = f"protocol {protocol}" if isinstance(protocol, int) else "no known protocol"
        raise RefusedError(
            f"a supervisor of another version is passed over: it speaks {said}, this command "
            f"protocol {PROTOCOL}; use the lmcache-plugins that is installed with its engine"
        )
    if message.get("ok") is not True:
        raise RefusedError(str(message.get("error")))
    return message


def _decode(line: bytes, found: Found) -> dict[str, Any]:
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        message = None
    if not isinstance(message, dict):
        raise RefusedError(f"what answers at '{found.path}' is no supervisor")
    return message


def _connect(found: Found, deadline: float) -> socket.socket:
    try:
        directory = os.open(found.path, _DIRECTORY)
    except FileNotFoundError:
        raise GoneError from None
    except OSError as error:
        raise RefusedError(f"cannot open '{found.path}': {error.strerror}") from None
    try:
        if os.fstat(directory).st_uid != found.uid:
            raise RefusedError(f"refused '{found.path}': it does not belong to user {found.uid}")
        try:
            about = os.stat(CONTROL_SOCKET, dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            _clear_away(found, directory)
            raise GoneError from None
        if not stat.S_ISSOCK(about.st_mode) or about.st_uid != found.uid:
            what = f"it is not a socket of user {found.uid}"
            raise RefusedError(f"refused '{found.path}/{CONTROL_SOCKET}': {what}")
        return _connect_in(directory, found, deadline)
    finally:
        os.close(directory)


def _connect_in(directory: int, found: Found, deadline: float) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.setblocking(False)
    try:
        while True:
            try:
                # Through /proc/self/fd: the directory that was checked, and no limit of length.
                connection.connect(f"/proc/self/fd/{directory}/{CONTROL_SOCKET}")
                break
            except BlockingIOError:  # its queue is full
                if time.monotonic() > deadline:
                    raise RefusedError(f"{_who(found)} takes no connection") from None
                time.sleep(_RETRY_SECONDS)
        _check_peer(connection, found)
    except (ConnectionRefusedError, FileNotFoundError):
        connection.close()
        _clear_away(found, directory)
        raise GoneError from None
    except OSError as error:
        connection.close()
        raise RefusedError(f"cannot connect to '{found.path}': {error.strerror}") from None
    except RefusedError:
        connection.close()
        raise
    return connection


def _check_peer(connection: socket.socket, found: Found) -> None:
    found.peer_pid, uid = peer_of(connection)
    if uid != found.uid:
        raise RefusedError(f"refused '{found.path}': user {uid} answers there, not {found.uid}")


def _clear_away(found: Found, directory: int) -> None:
    """Remove what a killed supervisor left, if no other holds the place (it locks its own)."""
    with contextlib.suppress(OSError):
        fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if found.uid == os.getuid():  # root leaves users' directories to the users
            remove_instance(found.path)


def _who(found: Found) -> str:
    return f"the supervisor at '{found.path}'"


@contextlib.contextmanager
def _noted(reply: Reply) -> Iterator[None]:
    """Note in ``reply`` what went wrong."""
    try:
        yield
    except GoneError:
        pass
    except RefusedError as refused:
        reply.problem = str(refused)
