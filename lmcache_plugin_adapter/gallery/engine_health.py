"""Whether an engine does its work: its process, its answers, its progress.

``EngineHealth.check`` looks at what is asked for in ``HealthSettings`` and always returns in time,
also where the engine accepts connections and never answers (a process under SIGSTOP does so: it is
the kernel that accepts). Faults that show::

    dead          the engine process has ended, or is a zombie
    stopped       it is stopped (SIGSTOP, a debugger) for longer than a moment
    unresponsive  LMCache's internal API or vLLM's HTTP server does not answer
    stalled       vLLM has requests and gets on with none of them; or the engine's first thread
                  hangs in the kernel
    starting      all is well so far, but not everything has answered for the first time

What cannot show: vLLM's metrics come from the engine's steps. An engine that hangs in the very
step that its first request began has reported no request yet.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

import httpx
import msgspec
from msgspec import Meta

from .engine_progress import Progress
from .target import failure

if TYPE_CHECKING:
    from collections.abc import Callable

    from lmcache_plugin_adapter.kit import Context

State = Literal["ok", "dead", "stopped", "unresponsive", "stalled", "starting"]

INTERNAL_API_PATH = "/version"
"""Any answer to it will do, 404 as well: LMCache's internal API has no path for health."""

ANSWER_BYTES = 16 << 20
"""As much of an answer is read; vLLM's metrics have some hundred KiB."""

_STOPPED = "Tt"
_ENDED = "ZXx"

Url = Annotated[str, Meta(pattern=r"^https?://[^/?#\s]+\S*$")]


class HealthSettings(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """How an engine is examined."""

    health_url: Annotated[
        Url | None,
        Meta(description="vLLM's health check, such as `http://127.0.0.1:8000/health`."),
    ] = None
    metrics_url: Annotated[
        Url | None,
        Meta(
            description=(
                "vLLM's metrics, such as `http://127.0.0.1:8000/metrics`: they tell whether "
                "requests get on."
            )
        ),
    ] = None
    internal_api: Annotated[
        bool,
        Meta(
            description=(
                "Ask LMCache's internal API, too, where `internal_api_server_enabled` is set."
            )
        ),
    ] = True
    timeout: Annotated[
        float, Meta(gt=0, le=60, description="Seconds in which each of them must answer.")
    ] = 2.0
    failures: Annotated[
        int,
        Meta(ge=1, le=100, description="Unanswered questions in a row that mean `unresponsive`."),
    ] = 3
    stopped_after: Annotated[
        float,
        Meta(ge=0, le=3600, description="Seconds for which a process may be stopped unnoticed."),
    ] = 2.0
    stalled_after: Annotated[
        float,
        Meta(
            gt=0,
            le=86400,
            description=(
                "Seconds without progress (tokens, use of the KV cache) in which there were "
                "requests; or in which the engine's first thread hung in the kernel."
            ),
        ),
    ] = 60.0
    verify: Annotated[
        bool, Meta(description="`false` accepts any certificate of vLLM's HTTPS server.")
    ] = True

    def detection(self, interval: float) -> dict[State, float]:
        """Return the longest time from each fault to its verdict, in seconds.

        Args:
            interval: Seconds from one check to the next.
        """
        # A check that waits for an answer may make the next one miss its time.
        round_ = interval if self.timeout < interval else interval + self.timeout
        found: dict[State, float] = {
            "dead": round_ + self.timeout,
            "stopped": self.stopped_after + 2 * round_ + self.timeout,
        }
        if self.health_url or self.metrics_url or self.internal_api:
            found["unresponsive"] = (self.failures + 1) * round_ + self.timeout
        found["stalled"] = self.stalled_after + 2 * round_ + self.timeout
        return found


class Verdict(NamedTuple):
    """What a check found.

    Attributes:
        healthy: Whether the engine may be said to work.
        reason: Why not, for a person to read. Of a healthy engine: what is odd, or empty.
        state: The fault, or ``ok``.
    """

    healthy: bool
    reason: str
    state: State


class EngineHealth:
    """Examines one engine, again and again. Not for several threads at once.

    Args:
        ctx: Whose engine: ``ctx.engine_pid`` and ``ctx.internal_api``.
        settings: What to examine.
        clock: Seconds that only grow.
    """

    def __init__(
        self,
        ctx: Context,
        settings: HealthSettings,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._process = None
        if ctx.engine_pid is not None:
            self._process = _Process(ctx.engine_pid, settings)
        self._progress = Progress()
        self._questions: list[_Question] = []
        timeout = settings.timeout
        if settings.internal_api and ctx.internal_api is not None:
            api = ctx.internal_api
            self._questions.append(
                _Question(
                    "LMCache's internal API",
                    api.url + INTERNAL_API_PATH,
                    lambda: api.client(timeout=timeout),
                    _accept_any,
                )
            )

        def open_client() -> httpx.Client:
            return httpx.Client(
                timeout=timeout,
                verify=settings.verify,
                trust_env=False,  # no proxy stands between an engine and its plugin
            )

        if settings.health_url is not None:
            url = settings.health_url
            self._questions.append(_Question(f"GET {url}", url, open_client, _accept_ok))
        if settings.metrics_url is not None:
            url = settings.metrics_url
            self._questions.append(_Question(f"GET {url}", url, open_client, self._take_metrics))

    def check(self) -> Verdict:
        """Examine the engine; takes about ``timeout`` seconds at most."""
        now = self._clock()
        verdict = self._process.look(now) if self._process is not None else _OK
        if verdict.state != "ok":
            return verdict
        if self._process is None or not self._process.is_stopped:
            self._ask()
        return self._judge_answers(verdict)

    def _ask(self) -> None:
        deadline = time.monotonic() + self._settings.timeout
        for question in self._questions:
            question.ask(self._settings.timeout)
        for question in self._questions:
            question.await_answer(deadline, self._settings.timeout)

    def _judge_answers(self, verdict: Verdict) -> Verdict:
        odd = [verdict.reason] if verdict.reason else []
        limit = self._settings.failures
        for question in self._questions:
            if question.failed and question.answered:
                if question.failed >= limit:
                    text = f"{question.problem} ({question.failed} in a row)"
                    return Verdict(False, text, "unresponsive")
                odd.append(f"{question.problem} ({question.failed} of {limit})")
        for engine, seconds, requests in self._progress.standing(self._clock()):
            which = f" of engine {engine}" if engine else ""
            text = f"no progress{which} for {seconds:.0f} s with {requests:.0f} requests"
            if seconds >= self._settings.stalled_after:
                return Verdict(False, text, "stalled")
            if seconds >= self._settings.stalled_after / 2:
                odd.append(text)
        for question in self._questions:
            if not question.answered:
                text = f"has not answered yet: {question.problem}"
                return Verdict(False, text, "starting")
        return Verdict(True, "; ".join(odd), "ok")

    def _take_metrics(self, status: int, body: bytes) -> str:
        problem = _accept_ok(status, body)
        if problem:
            return problem
        return self._progress.take(body.decode(errors="replace"), self._clock())


_OK = Verdict(True, "", "ok")


class _Process:
    """What ``/proc`` says of the engine process."""

    def __init__(self, pid: int, settings: HealthSettings) -> None:
        self._pid = pid
        self._settings = settings
        found = _read_stat(pid)
        self._start = found[1] if found is not None else None
        self._stopped_since: float | None = None
        self._blocked_since: float | None = None
        self._switches: bytes | None = None

    @property
    def is_stopped(self) -> bool:
        """Whether it was stopped when last looked at."""
        return self._stopped_since is not None

    def look(self, now: float) -> Verdict:
        """Judge the process alone."""
        found = _read_stat(self._pid)
        if found is None:
            return Verdict(False, f"engine process {self._pid} is gone", "dead")
        state, start = found
        if self._start is None or start != self._start:
            text = f"engine process {self._pid} is gone (another has this pid now)"
            return Verdict(False, text, "dead")
        if state in _ENDED:
            text = f"engine process {self._pid} has ended (state {state})"
            return Verdict(False, text, "dead")
        odd = []
        stopped = self._stopped_for(state, now)
        if stopped is not None:
            text = f"engine process {self._pid} is stopped (state {state}) for {stopped:.1f} s"
            if stopped >= self._settings.stopped_after:
                return Verdict(False, text, "stopped")
            odd.append(text)
        blocked = self._blocked_for(state, now)
        if blocked is not None:
            text = f"engine process {self._pid} hangs in the kernel (state D) for {blocked:.1f} s"
            if blocked >= self._settings.stalled_after:
                return Verdict(False, text, "stalled")
            if blocked >= self._settings.stopped_after:
                odd.append(text)
        return Verdict(True, "; ".join(odd), "ok")

    def _stopped_for(self, state: str, now: float) -> float | None:
        if state not in _STOPPED:
            self._stopped_since = None
            return None
        if self._stopped_since is None:
            self._stopped_since = now
        return now - self._stopped_since

    def _blocked_for(self, state: str, now: float) -> float | None:
        """Return for how long the first thread has been in one and the same wait."""
        switches = _read_switches(self._pid) if state == "D" else None
        if switches is None or switches != self._switches or self._blocked_since is None:
            self._blocked_since = now
        self._switches = switches
        return now - self._blocked_since if switches is not None else None


def _read_stat(pid: int) -> tuple[str, int] | None:
    """Return a process's state and start time (clock ticks since boot), or None."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            line = file.read()
        # The command's name stands in parentheses and may hold anything.
        rest = line[line.rindex(b")") + 2 :].split()
        return rest[0].decode(), int(rest[19])
    except (OSError, ValueError, IndexError):
        return None


def _read_switches(pid: int) -> bytes | None:
    """Return the counts of context switches of a process's first thread."""
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            lines = file.read().splitlines()
    except OSError:
        return None
    return b" ".join(line for line in lines if b"_ctxt_switches:" in line)


def _accept_any(status: int, _body: bytes) -> str:
    return f"HTTP {status}" if status >= 500 else ""


def _accept_ok(status: int, _body: bytes) -> str:
    return "" if 200 <= status < 300 else f"HTTP {status}"


class _Question:
    """One address that must answer. A thread asks, so that nothing can hold up the check.

    Args:
        name: What is asked, for messages.
        url: The address.
        open_client: Makes the client, once, in the thread.
        judge: Returns what is wrong with status and body, or nothing.
    """

    def __init__(
        self,
        name: str,
        url: str,
        open_client: Callable[[], httpx.Client],
        judge: Callable[[int, bytes], str],
    ) -> None:
        self._name = name
        self._url = url
        self._open_client = open_client
        self._judge = judge
        self._client: httpx.Client | None = None
        self._thread: threading.Thread | None = None
        self._outcome = ""
        self.answered = False
        """Whether it ever did."""
        self.failed = 0
        """Questions in a row without a good answer."""
        self.problem = ""
        """What was wrong the last time."""

    def ask(self, timeout: float) -> None:
        """Begin to ask, unless the last question still waits."""
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._fetch, args=(timeout,), name=f"ask {self._url}", daemon=True
            )
            self._thread.start()

    def await_answer(self, deadline: float, timeout: float) -> None:
        """Take the answer; none by ``deadline`` (monotonic seconds) is a failure."""
        if self._thread is None:
            return
        self._thread.join(max(0.0, deadline - time.monotonic()))
        if self._thread.is_alive():
            problem = f"nothing within {timeout:g} s"
        else:
            self._thread = None
            problem = self._outcome
        if problem:
            self.failed += 1
            self.problem = f"{self._name}: {problem}"
        else:
            self.answered, self.failed, self.problem = True, 0, ""

    def _fetch(self, timeout: float) -> None:
        try:
            self._outcome = self._read(time.monotonic() + timeout)
        except httpx.HTTPError as error:
            self._outcome = failure(error)
        except Exception as error:  # noqa: BLE001 - a thread that dies would say nothing
            self._outcome = f"{type(error).__name__}: {error}"

    def _read(self, deadline: float) -> str:
        if self._client is None:
            self._client = self._open_client()
        body = bytearray()
        # A connection that is kept may be closed by the engine just when it is used again.
        close = {"Connection": "close"}
        with self._client.stream("GET", self._url, headers=close) as response:
            for piece in response.iter_bytes():
                body += piece
                if len(body) > ANSWER_BYTES:
                    return f"an answer of more than {ANSWER_BYTES >> 20} MiB"
                if time.monotonic() > deadline:
                    return "an answer that does not end"
            return self._judge(response.status_code, bytes(body))
