# SPDX-License-Identifier: Apache-2.0
"""A connection to one supervisor's control socket.

Owner, file type and peer are checked before anything is sent, and the size of
an answer is bounded. A supervisor that has exited is not an error: what it
left behind is removed.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import socket
import stat
import time
from typing import TYPE_CHECKING

from lmcache_plugin_adapter.contract.run_token import engine_lives
from lmcache_plugin_adapter.contract.runtime_dir import CONTROL_SOCKET, remove_instance
from lmcache_plugin_adapter.contract.wire import PROTOCOL
from lmcache_plugin_adapter.linux.peer import peer_of

from .search import OPEN_DIRECTORY

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from .search import Address

_ANSWER_BYTES = 16 << 20
_RETRY_SECONDS = 0.01
_MOST_DIGITS = 19


class SupervisorGoneError(Exception):
    """The supervisor has exited."""


class SupervisorError(Exception):
    """The supervisor refused the request, or cannot be trusted or understood."""


class Connection:
    """A connection that carries one request and its answers.

    Args:
        address: The supervisor.
        request: The request, as JSON has it.
        deadline: Monotonic time until which the socket's queue may stay full.

    Raises:
        SupervisorGoneError: The supervisor has exited.
        SupervisorError: The connection is not possible or not safe.
    """

    def __init__(self, address: Address, request: Mapping[str, Any], deadline: float) -> None:
        self.address = address
        self.ended = False
        self._data = bytearray()
        self._socket = _connect(address, deadline)
        try:
            self._socket.sendall(json.dumps(request).encode() + b"\n")
        except BlockingIOError:
            self.close()
            raise SupervisorError("the request is too long") from None
        except OSError:
            pass  # the supervisor may have sent its reason before it closed the connection

    def fileno(self) -> int:
        """Return the descriptor to wait for."""
        return self._socket.fileno()

    def receive(self) -> list[dict[str, Any]]:
        """Return the messages that have arrived; :attr:`ended` is true when no more will.

        Raises:
            SupervisorError: The data is not an answer.
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
            raise SupervisorError(f"{self.address} sends an answer without end")
        *lines, rest = self._data.split(b"\n")
        self._data = bytearray(rest)
        return [self._decode(bytes(line)) for line in lines]

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def _decode(self, line: bytes) -> dict[str, Any]:
        try:
            message = json.loads(
                line, parse_constant=_refuse, parse_float=_finite, parse_int=_bounded
            )
        except (ValueError, RecursionError):
            message = None
        if not isinstance(message, dict):
            raise SupervisorError(
                f"the process that answers at '{self.address.path}' is no supervisor"
            )
        return message


def _refuse(word: str) -> object:
    """Refuse NaN and Infinity, which JSON does not have but Python reads."""
    raise ValueError(word)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number


def _bounded(text: str) -> int:
    if len(text) > _MOST_DIGITS:
        raise ValueError(text)
    return int(text)


def check_answer(message: dict[str, Any]) -> dict[str, Any]:
    """Return a positive answer of this version's protocol.

    Raises:
        SupervisorError: The answer is negative or of another protocol.
    """
    protocol = message.get("protocol")
    if protocol != PROTOCOL:
        found = f"protocol {protocol}" if isinstance(protocol, int) else "no known protocol"
        raise SupervisorError(
            f"skipped a supervisor of another version: it speaks {found}, this command "
            f"protocol {PROTOCOL}; use the lmcache-plugins that is installed with its engine"
        )
    if message.get("ok") is not True:
        raise SupervisorError(str(message.get("error")))
    return message


def awaits_supervisor(address: Address) -> bool:
    """Whether the supervisor at ``address`` was killed and its engine starts another one there."""
    return os.path.isdir(address.path) and engine_lives(os.path.basename(address.path))


def _connect(address: Address, deadline: float) -> socket.socket:
    path, uid = address.path, address.uid
    try:
        directory = os.open(path, OPEN_DIRECTORY)
    except FileNotFoundError:
        raise SupervisorGoneError from None
    except OSError as error:
        raise SupervisorError(f"cannot open '{path}': {error.strerror}") from None
    try:
        if os.fstat(directory).st_uid != uid:
            raise SupervisorError(f"refused '{path}': it does not belong to user {uid}")
        try:
            file = os.stat(CONTROL_SOCKET, dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            _remove_leftovers(address, directory)
            raise SupervisorGoneError from None
        if not stat.S_ISSOCK(file.st_mode) or file.st_uid != uid:
            reason = f"it is not a socket of user {uid}"
            raise SupervisorError(f"refused '{path}/{CONTROL_SOCKET}': {reason}")
        return _connect_in(directory, address, deadline)
    finally:
        os.close(directory)


def _connect_in(directory: int, address: Address, deadline: float) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.setblocking(False)
        while True:
            try:
                # Through /proc/self/fd: the directory that was checked, and no limit of length.
                connection.connect(f"/proc/self/fd/{directory}/{CONTROL_SOCKET}")
                break
            except BlockingIOError:  # the queue of connections is full
                if time.monotonic() > deadline:
                    raise SupervisorError(f"{address} accepts no connection") from None
                time.sleep(_RETRY_SECONDS)
        _check_peer(connection, address)
    except (ConnectionRefusedError, FileNotFoundError):
        connection.close()
        _remove_leftovers(address, directory)
        raise SupervisorGoneError from None
    except OSError as error:
        connection.close()
        raise SupervisorError(f"cannot connect to '{address.path}': {error.strerror}") from None
    except SupervisorError:
        connection.close()
        raise
    return connection


def _check_peer(connection: socket.socket, address: Address) -> None:
    address.peer_pid, uid = peer_of(connection)
    if uid != address.uid:
        reason = f"user {uid} answers there, not {address.uid}"
        raise SupervisorError(f"refused '{address.path}': {reason}")


def _remove_leftovers(address: Address, directory: int) -> None:
    """Remove what a killed supervisor left, unless its engine starts another one there."""
    if engine_lives(os.path.basename(address.path)):
        return
    with contextlib.suppress(OSError):
        fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if address.uid == os.getuid():  # root leaves users' directories to the users
            remove_instance(address.path)
