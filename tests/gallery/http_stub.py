# SPDX-License-Identifier: Apache-2.0
"""A port that HTTP is spoken on, which a test can close, open again, and keep silent."""

from __future__ import annotations

import http.server
import threading

from servers import free_port


class HttpStub:
    """What the heartbeat's stand-in targets share; each has a handler of its own."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.silent = threading.Event()
        self._server: http.server.ThreadingHTTPServer | None = None

    def handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        """Return the class that answers."""
        raise NotImplementedError

    def start(self) -> None:
        """Listen on its port."""
        self._ending = threading.Event()
        address = ("127.0.0.1", self.port)
        self._server = http.server.ThreadingHTTPServer(address, self.handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def keeps_silent(self) -> bool:
        """Wait, in a handler, for the stub's end if no answer is to be given."""
        if not self.silent.is_set():
            return False
        self._ending.wait(60)
        return True

    def stop(self) -> None:
        """Listen no more; what it knows stays."""
        if self._server is not None:
            self._ending.set()
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()
            self._server = None
