# SPDX-License-Identifier: Apache-2.0
"""The supervisor's side of the connection to its engine: messages, and the engine's end."""

from __future__ import annotations

import _socket  # not socket, whose enumerations take 0.4 MB

from lmcache_plugin_adapter.contract import variables, wire
from lmcache_plugin_adapter.contract.log_records import WARNING
from lmcache_plugin_adapter.linux.descriptor_passing import receive_descriptors
from lmcache_plugin_adapter.linux.process_watch import watch_engine
from lmcache_plugin_adapter.linux.procfs import has_memory, memory_image, thread_count

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from lmcache_plugin_adapter.supervisor.output.event_log import EventLog

    from .handover import Handover


class EngineConnection:
    """Receive the engine's messages, notice its end, and send it messages.

    Args:
        events: The log of events, which must know when the engine has ended.
        handover: What the engine handed over.
        on_stop: Called when plugins must stop, with the reason for the log and
            the exit reason for plugins; possibly more than once.
        on_client: Called with a connection of a client of the control socket.
    """

    def __init__(
        self,
        events: EventLog,
        handover: Handover,
        on_stop: Callable[[str, str], None],
        on_client: Callable[[_socket.socket], None],
    ) -> None:
        self._loop = events.loop
        self._events = events
        self._handover = handover
        self._on_stop = on_stop
        self._on_client = on_client
        self._received: set[int] = set()
        """The kinds of messages that the engine has sent."""
        self.socket = _socket.socket(fileno=handover.connection)
        self.socket.setblocking(False)

    def watch(self) -> None:
        """Begin to receive messages and to watch the engine."""
        handover = self._handover
        watch_engine(
            self._loop,
            handover.pidfd,
            handover.engine,
            handover.engine_start,
            self._engine_ended,
            lambda text: self._events.log(WARNING, text),
        )
        self._loop.watch(self.socket.fileno(), self._receive)

    def send(self, message: bytes, value: object = "") -> None:
        """Send a message to the engine."""
        try:
            self.socket.send(wire.line(message, value))
        except OSError:
            pass  # the engine has exited, which its pidfd reports

    def finish(self) -> None:
        """Report that no plugin process is left, and send nothing more."""
        self.send(wire.FINISHED)
        try:
            self.socket.shutdown(_socket.SHUT_WR)  # all waiting threads of the engine see it
        except OSError:
            pass  # the engine has exited

    def stop(self) -> None:
        """Handle the engine's request to stop, on whichever way it came."""
        self._received.update(wire.STOP)
        self._on_stop("the engine closes", self._exit_reason())

    def _receive(self) -> None:
        try:
            data, fds = receive_descriptors(self.socket, 64, wire.MOST_DESCRIPTORS)
        except BlockingIOError:
            return
        except OSError:
            data, fds = b"", []
        self._received.update(data)
        for fd in fds:
            self._on_client(_socket.socket(fileno=fd))
        if wire.STOP in data:
            self.stop()
        elif not data:
            # Closed by exec, by an exit that cannot be seen in /proc yet, or by the engine alone.
            self._loop.unwatch(self.socket.fileno())
            if not has_memory(self._handover.engine):
                self._engine_ended()
            elif self._is_same_program():
                self._events.log(
                    WARNING,
                    f"The engine (pid {self._handover.engine}) has closed the connection to its "
                    "supervisor: plugins continue, and stop with the engine",
                )
            else:
                self._events.engine_ended()
                what = f"its engine (pid {self._handover.engine}) became another program"
                self._on_stop(what, variables.REPLACED)

    def _is_same_program(self) -> bool:
        """Whether the engine has closed its descriptors and has not called exec.

        An exec leaves one thread; beside the engine's own runs the one that watches the
        supervisor.
        """
        engine = self._handover.engine
        image = memory_image(engine)
        return thread_count(engine) > 1 and image in ("", self._handover.image)

    def _engine_ended(self) -> None:
        try:  # its last messages may not have been read yet
            self._received.update(self.socket.recv(64, _socket.MSG_PEEK | _socket.MSG_DONTWAIT))
        except OSError:
            pass
        self._events.engine_ended()
        self._on_stop(f"its engine (pid {self._handover.engine}) ended", self._exit_reason())

    def _exit_reason(self) -> str:
        """Return the engine's exit reason, in the word that plugins get."""
        if self._has_received(wire.FAILING):
            return variables.FAILED
        announced = self._has_received(wire.EXITING) or self._has_received(wire.STOP)
        return variables.CLOSING if announced else variables.DIED

    def _has_received(self, message: bytes) -> bool:
        return message[0] in self._received
