# SPDX-License-Identifier: Apache-2.0
"""The messages of a child that searches for plugins to its parent, on a pipe.

Both ends are the same interpreter, so ``marshal`` is exact. A hung file system
cannot be interrupted; the parent continues without a child that sends nothing for
:data:`HUNG_SECONDS`.
"""

from __future__ import annotations

import marshal
import os
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

HUNG_SECONDS = 2.0
"""A location that does not answer for this long is skipped."""

_LENGTH = struct.Struct("=I")


def write_message(fd: int, message: Any) -> None:
    """Send one message."""
    data = marshal.dumps(message)
    data = _LENGTH.pack(len(data)) + data
    while data:
        data = data[os.write(fd, data) :]


def read_messages(data: bytes) -> tuple[list[Any], bytes]:
    """Return the complete messages in ``data``, and the rest of it."""
    messages = []
    while len(data) >= _LENGTH.size:
        end = _LENGTH.size + _LENGTH.unpack_from(data)[0]
        if len(data) < end:
            break
        messages.append(marshal.loads(data[_LENGTH.size : end]))  # noqa: S302 - our own child
        data = data[end:]
    return messages, data
