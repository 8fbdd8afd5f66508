# SPDX-License-Identifier: Apache-2.0
"""What is fuzzed: each target takes any bytes and raises if a promise is broken."""

from __future__ import annotations

import json
import os
import re
import socket
import struct
import tempfile
from collections.abc import Callable
from typing import Any

from lmcache_plugin_adapter.configuration.locations import merge_locations
from lmcache_plugin_adapter.configuration.settings import Settings, read_settings
from lmcache_plugin_adapter.configuration.settings_table import SETTINGS
from lmcache_plugin_adapter.contract.identity import ProcessIdentity, Role
from lmcache_plugin_adapter.contract.launch_spec import LaunchSpec
from lmcache_plugin_adapter.contract.run_token import engine_is_gone
from lmcache_plugin_adapter.linux.event_loop import Loop
from lmcache_plugin_adapter.messages.near_miss import near_miss
from lmcache_plugin_adapter.planner.file_names import (
    NotAPlugin,
    PluginName,
    name_warning,
    parse_name,
    runs_on,
)
from lmcache_plugin_adapter.planner.installed_packages import GROUP, Packages, is_name
from lmcache_plugin_adapter.planner.installed_plugin import find_installed
from lmcache_plugin_adapter.planner.shebang import read_env, read_shebang, split_string
from lmcache_plugin_adapter.supervisor.control.operations import Operations
from lmcache_plugin_adapter.supervisor.control.server import ControlServer
from lmcache_plugin_adapter.supervisor.operator_stops import OperatorStops
from lmcache_plugin_adapter.supervisor.output.event_log import printable_name
from lmcache_plugin_adapter.supervisor.output.line_framing import (
    CUT_MARK_BYTES,
    LineFramer,
    sanitize,
)

FLEET = [
    ProcessIdentity(Role.SCHEDULER, -1, 2),
    ProcessIdentity(Role.WORKER, 0, 2),
    ProcessIdentity(Role.WORKER, 1, 2),
    ProcessIdentity(Role.SERVER, 0, 1),
    ProcessIdentity(None, 0, 1),
]

_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def check(truth: object, *what: object) -> None:
    """Raise where ``truth`` is false; an assertion that optimisation keeps."""
    if not truth:
        raise AssertionError(*what)


class Shape:
    """Values as YAML and JSON make them, chosen by bytes: deep, odd, and near what is meant."""

    WORDS = tuple(
        dict.fromkeys(word for row in SETTINGS for word in [*row.key.split("."), str(row.default)])
    )
    WORDS += ("runtime_plugins", "all_x", "off", "never", "1e999", "nan", "~/x", "$HOME", "pkg:x")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def byte(self) -> int:
        """Return the next byte; 0 at the end."""
        self._at += 1
        return self._data[self._at - 1] if self._at <= len(self._data) else 0

    def text(self) -> str:
        """Return a known word or any text."""
        kind = self.byte()
        if kind < 192:
            return self.WORDS[kind % len(self.WORDS)]
        length = self.byte() % 24
        start = self._at
        self._at += length
        return self._data[start : self._at].decode("utf-8", "surrogateescape")

    def value(self, depth: int = 0) -> object:
        """Return any value."""
        kind = self.byte() % (12 if depth < 6 else 9)
        if kind == 0:
            return None
        if kind == 1:
            return bool(self.byte() % 2)
        if kind == 2:
            return int.from_bytes(bytes((self.byte(), self.byte())), "little", signed=True)
        if kind == 3:
            raw = bytes(self.byte() for _ in range(8))
            number: float = struct.unpack("d", raw)[0]
            return number
        if kind == 4:
            return (1 << self.byte() * 4) - self.byte()
        if kind <= 8:
            return self.text()
        count = self.byte() % 6
        if kind == 9:
            return [self.value(depth + 1) for _ in range(count)]
        return {self._key(): self.value(depth + 1) for _ in range(count)}

    def _key(self) -> object:
        return self.text() if self.byte() % 16 else self.byte()  # YAML has keys that are numbers


def names(data: bytes) -> None:
    """File names: read, or refused with a reason; never an exception."""
    flags, text = data[:1], os.fsdecode(data[1:].replace(b"\0", b"").replace(b"/", b""))
    executable, is_location = bool(flags and flags[0] & 1), bool(flags and flags[0] & 2)
    parsed = parse_name(text, executable=executable, is_location=is_location)
    if isinstance(parsed, PluginName):
        where = [runs_on(parsed, identity) for identity in FLEET]
        check(where[4], "a process without a role filters nothing")
        if parsed.worker_id is not None:
            check(parsed.worker_id >= 0, parsed)
            check(sum(where[1:3]) <= 1, "an id belongs to one worker")
        warning = name_warning(parsed, FLEET)
        check(warning is None or "\n" not in printable_name(warning), warning)
    else:
        check(isinstance(parsed, NotAPlugin))
        check(parsed.reason)
        if parsed.suggestion:
            meant = parse_name(parsed.suggestion, executable=executable, is_location=is_location)
            check(isinstance(meant, PluginName), "a suggestion that is no plugin", parsed)
    check("\n" not in printable_name(text))


def shebangs(data: bytes) -> None:
    """First lines: read as the kernel does, or None; never an exception."""
    found = read_shebang(data)
    if found is not None:
        check(found.interpreter)
        check(b"\n" not in found.interpreter)
        check(b"\0" not in found.interpreter)
    if not data.startswith(b"#!"):
        bom = data.startswith(b"\xef\xbb\xbf#!")
        check(found is None or bom, "no shebang, but found", found)
    read_env(data)
    read_env(None)
    words = split_string(data)
    check(words is None or all(isinstance(word, bytes) for word in words))


def settings(data: bytes) -> None:
    """Settings of any shape: what is wrong is said in one line each, and defaults hold."""
    shape = Shape(data)
    value = shape.value()
    extra = {"runtime_plugins": value} if shape.byte() % 8 else value
    found, problems = read_settings(extra, {"HOME": "/home/x"})
    check(isinstance(found, Settings))
    for each in [found.defaults, *found.plugins.values()]:
        check(each.stop_grace >= 0)
        check(each.max_line_bytes > 0)
        check(each.log_buffer_bytes >= 0)
        check(each.restart in ("never", "on-failure", "always"))
        check(0 < each.backoff.initial <= each.backoff.max, each.backoff)
        check(each.rate_limit is None or each.rate_limit.lines > 0)
        check(all(isinstance(arg, str) and "\0" not in arg for arg in each.args), each.args)
        check(all("\0" not in k + v and "=" not in k and k for k, v in each.env.items()), each.env)
    locations, more = merge_locations(value, found.locations, {"HOME": "/home/x"})
    check(len(locations) == len(set(locations)), "locations twice")
    for problem in [*problems, *more]:
        check(problem.level in ("error", "warning", "note"))
        check("\n" not in problem.text, problem)


def lines(data: bytes) -> None:
    """Output: the same lines however it is cut into reads; clean, bounded, all counted."""
    head, stream = data[:4], data[4:]
    limit = 16 + (head[0] if head else 0)
    step = 1 + (head[1] if len(head) > 1 else 0)

    def frame(pieces: list[bytes]) -> list[tuple[int, bytes]]:
        framer = LineFramer(limit)
        blocks = [block for piece in pieces for block in framer.feed(piece)]
        blocks += framer.flush()
        for block in blocks:
            check(block.lines == block.text.count(b"\n") + 1)
        return [(block.level, text) for block in blocks for text in block.text.split(b"\n")]

    whole = frame([stream] if stream else [])
    pieces = [stream[at : at + step] for at in range(0, len(stream), step)]
    check(frame(pieces) == whole, "differs by the cut of the reads")
    expected = stream.count(b"\n") + (stream != b"" and not stream.endswith(b"\n"))
    check(len(whole) == expected, "lines lost or made up")
    for level, text in whole:
        check(0 <= level <= 7)
        check(len(text) <= limit + CUT_MARK_BYTES)
        check(not _CONTROL.search(text.decode()), text)
    clean = sanitize(stream)
    check(sanitize(clean) == clean)


class _Output:
    """As much of a plugin's output as an operation needs."""

    class ring:  # noqa: N801 - stands for an attribute
        @staticmethod
        def lines() -> list[tuple[float, int, str]]:
            """Return one line."""
            return [(1.0, 6, "line")]

    def __init__(self) -> None:
        self.followers: list[object] = []


class _Plugin:
    """As much of a plugin as an operation needs."""

    class state:  # noqa: N801 - stands for an attribute
        settled = True
        value = "running"

    starts_again = False

    class planned:  # noqa: N801 - stands for an attribute
        names = ("all_x", "all_x.sh", "/p/all_x.sh")
        path = "/p/all_x.sh"

    def __init__(self) -> None:
        self.name = "all_x"
        self.output = _Output()

    def start(self) -> None:
        """Do nothing."""

    stop = start


class _Plugins:
    """One plugin."""

    names = ("all_x",)
    stopping = False
    on_change = None
    on_add = None

    def __init__(self) -> None:
        self._plugin = _Plugin()
        self.stops = OperatorStops(lambda _text: None)

    def __iter__(self) -> Any:
        return iter([self._plugin])

    def get(self, name: str) -> _Plugin | None:
        """Return it."""
        return self._plugin if name in self._plugin.planned.names else None


_errors: list[BaseException] = []
_loop = Loop(_errors.append)


def control(data: bytes) -> None:
    """Requests: each line is answered with a line of JSON; nothing else happens."""
    plugins: Any = _Plugins()
    operations = Operations(
        _loop,
        plugins,
        lambda: {"plugins": []},
        lambda answer: answer({"reloaded": []}),
        lambda: None,
    )
    server = ControlServer(_loop, operations.handlers)
    ours, theirs = socket.socketpair()
    with ours:
        server.adopt(theirs)
        shape = Shape(data)
        if shape.byte() % 2:
            request: Any = shape.value()
            if isinstance(request, dict):
                ops = [*operations.handlers, "none"]
                request["op"] = ops[shape.byte() % len(ops)]
                request["names"] = [["all_x"], ["all_y"], shape.value(), 7][shape.byte() % 4]
                request["all"] = bool(shape.byte() % 2)
                request["wait"] = shape.byte() % 2
                request["lines"] = shape.value()
            stream = json.dumps(request, default=str, skipkeys=True).encode() + b"\n"
        else:
            stream = data[1:]
        ours.setblocking(False)
        ours.sendall(stream[:60_000])
        for _ in range(3):
            for fd, _events in _loop._epoll.poll(0):
                callback = _loop._callbacks.get(fd)
                if callback is not None:
                    callback()
        operations._answer_waiters()
        answers = b""
        try:
            while part := ours.recv(1 << 16):
                answers += part
        except BlockingIOError:
            pass
        server.close()
    for answer in answers.splitlines():
        found = json.loads(answer)
        check(isinstance(found, dict))
    if stream.endswith(b"\n") and stream.count(b"\n") == 1:
        check(answers, "no answer", stream)
    check(not _errors, _errors)


def spec(data: bytes) -> None:
    """Launch specs: read, or a ValueError."""
    shape = Shape(data)
    if shape.byte() % 2:
        header: Any = {
            "identity": {
                "role": ["worker", "scheduler", None, shape.value()][shape.byte() % 4],
                "worker_id": shape.value(),
                "worker_count": 1,
                "dp_rank": 0,
                "dp_size": 1,
            },
            "locations": shape.value(),
            "engine_pid": shape.value(),
            "run_id": shape.value(),
            "python": shape.value(),
            "notes": shape.value(),
            "metrics_module": "",
        }
        raw = json.dumps(header, default=str, skipkeys=True).encode() + b"\n" + data
    else:
        raw = data[1:]
    try:
        found = LaunchSpec.from_bytes(raw)
    except ValueError:
        return
    check(isinstance(found, LaunchSpec))
    engine_is_gone(str(found.run_id))


def words(data: bytes) -> None:
    """Near misses: one of the choices or None, in bounded time, for words of any length."""
    first, _, rest = data.partition(b"\n")
    word = first.decode("utf-8", "surrogateescape")
    choices = [line.decode("utf-8", "surrogateescape") for line in rest.split(b"\n")][:50]
    choices += ["worker", "scheduler", "restart", "on-failure"]
    found = near_miss(word, choices)
    check(found is None or found in choices, found)


def packages(data: bytes) -> None:
    """Metadata of installed packages: what is offered is harmless, whatever they say."""
    head, _, rest = data.partition(b"\0")
    with tempfile.TemporaryDirectory(prefix="fuzz-packages-") as site:
        metadata = os.path.join(site, "acme-1.dist-info")
        os.mkdir(metadata, 0o755)
        for name, content in (
            ("entry_points.txt", f"[{GROUP}]\nall_x = ".encode() + rest),
            ("METADATA", head),
            ("../__editable___acme_finder.py", b"MAPPING = " + rest),
        ):
            with open(os.path.join(metadata, name), "wb") as file:
                file.write(content)
        found = Packages([site])
        for name, offer in found.entry_points.items():
            check(is_name(name), name)
            check(offer.package.isprintable(), offer.package)
            plugin, _ = find_installed(f"pkg:{name}", found)
            check(plugin is not None and bool(plugin.reference) is not bool(plugin.trouble))
            for word in filter(None, re.split("[.:]", plugin.reference if plugin else "")):
                check(word.isidentifier(), word)
            texts = (plugin.trouble, plugin.warning, plugin.note) if plugin else ()
            check(all(text.isprintable() and len(text) < 1000 for text in texts), texts)
        missing, problems = find_installed("pkg:" + rest.decode("utf-8", "surrogateescape"), found)
        check(missing is not None or problems[0].text.isprintable(), problems)


TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target
    for target in (names, shebangs, settings, lines, control, spec, words, packages)
}
