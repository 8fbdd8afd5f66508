"""Whether an engine does its work: its process, its answers, its progress.

``EngineHealth.check`` looks at what is asked for in ``HealthSettings`` and always returns in time,
also where the engine accepts connections and never answers (a process under SIGSTOP does so: it is
the kernel that accepts). Faults that show::

    dead          the engine process has ended, or is a zombie
    stopped       it is stopped (SIGSTOP, a debugger) for longer than a moment
    unresponsive  LMCache's internal API or vLLM's HTTP server does not answer
    stalled       vLLM has requests and gets on with none of them; or does not answer a trial
                  request; or the engine's first thread hangs in the kernel
    starting      all is well so far, but not everything has answered for the first time; an
                  engine process that is old by now is unresponsive instead

vLLM's metrics come from the engine's steps: one that hangs in the very step that its first request
began has reported no request yet. Only a trial request shows that.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import httpx
import msgspec
from msgspec import Meta

from lmcache_plugin_adapter import kit
from lmcache_plugin_adapter.gallery.http_client.target import check_url, shown_url

from .process import Process, State, Verdict
from .progress import Progress
from .questions import Question, accept_any, accept_ok
from .trial import Trial, Trials

__all__ = ["EngineHealth", "HealthSettings", "State", "Verdict"]

if TYPE_CHECKING:
    from collections.abc import Callable

    from lmcache_plugin_adapter.kit import Context

INTERNAL_API_PATH = "/version"
"""Any answer to it will do, 404 as well: LMCache's internal API has no path for health."""

Url = Annotated[
    str,
    Meta(
        pattern=r"^https?://[^/?#\s]+\S*$",
        extra={"accepted": "an address with http:// or https://"},
    ),
]


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
    starting_for: Annotated[
        float,
        Meta(
            ge=0,
            le=7 * 86400,
            description=(
                "Seconds of an engine process's life in which it need not have answered yet: a "
                "model is loaded before. After that, no answer means `unresponsive`, also to a "
                "plugin that was started again and has seen none."
            ),
        ),
    ] = 1800.0
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
    trial: Annotated[
        Trial | None,
        Meta(description="A request for an idle engine, which shows no other sign of a hang."),
    ] = None

    def __post_init__(self) -> None:
        """Refuse what only looks like an address."""
        for key in ("health_url", "metrics_url"):
            url = getattr(self, key)
            if url is not None:
                check_url(key, url)

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
        stalled = self.stalled_after
        if self.trial is not None:
            stalled = max(stalled, self.trial.interval + self.trial.timeout + round_)
        found["stalled"] = stalled + 2 * round_ + self.timeout
        return found


_OK = Verdict(True, "", "ok")


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
        self._pid = ctx.engine_pid
        self._process = None
        if ctx.engine_pid is not None:
            self._process = Process(ctx.engine_pid, settings.stopped_after, settings.stalled_after)
        self._progress = Progress()
        self._trials = Trials(settings.trial, clock) if settings.trial is not None else None
        self._questions: list[Question] = []  # that to the internal API, if any, is the first
        timeout = settings.timeout
        self._api = api = ctx.internal_api if settings.internal_api else None
        self._has_api = False
        self._said_taken = False
        if api is not None:
            self._questions.append(
                Question(
                    "LMCache's internal API",
                    api.url + INTERNAL_API_PATH,
                    lambda: api.client(timeout=timeout),
                    accept_any,
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
            self._questions.append(Question(f"GET {shown_url(url)}", url, open_client, accept_ok))
        if settings.metrics_url is not None:
            url = settings.metrics_url
            name = f"GET {shown_url(url)}"
            self._questions.append(Question(name, url, open_client, self._take_metrics))

    def check(self) -> Verdict:
        """Examine the engine; takes about ``timeout`` seconds at most."""
        now = self._clock()
        verdict = self._process.look(now) if self._process is not None else _OK
        if verdict.state != "ok":
            return verdict
        questions = self._own_questions()
        if self._process is None or not self._process.is_stopped:
            self._ask(questions)
        return self._judge_answers(questions, verdict)

    def death(self, word: str) -> Verdict | None:
        """Return the verdict on an engine that has died, when it is time to end; else None.

        Args:
            word: The context's ``ending``.
        """
        return None if self._process is None else self._process.death(word)

    def _own_questions(self) -> list[Question]:
        """Return all questions but one to an internal API that is another engine's.

        Only one of the engines on a host gets a port, and another one's answers (or none) say
        nothing of this one.
        """
        if self._api is None or self._pid is None or self._has_api:
            return self._questions
        self._has_api = self._api.listens_in(self._pid) is True  # it has the port until it ends
        if self._has_api or not self._api.is_taken_from(self._pid):
            return self._questions
        if not self._said_taken:
            self._said_taken = True
            kit.info(
                f"LMCache's internal API is not asked: at {self._api} another process listens, "
                f"and not engine process {self._pid}"
            )
        return self._questions[1:]

    def _ask(self, questions: list[Question]) -> None:
        deadline = time.monotonic() + self._settings.timeout
        for question in questions:
            question.ask(self._settings.timeout)
        for question in questions:
            question.await_answer(deadline, self._settings.timeout)
        if self._trials is not None and all(question.answered for question in questions):
            self._trials.look(self._progress.moved_at)

    def _judge_answers(self, questions: list[Question], verdict: Verdict) -> Verdict:
        odd = [verdict.reason] if verdict.reason else []
        limit = self._settings.failures
        is_old = self._process is not None and self._process.age > self._settings.starting_for
        for question in questions:
            if question.failed and (question.answered or is_old):
                if question.failed >= limit:
                    text = f"{question.problem} ({question.failed} in a row)"
                    return Verdict(False, text, "unresponsive")
                odd.append(f"{question.problem} ({question.failed} of {limit})")
        for engine, seconds, requests in self._progress.standing(self._clock()):
            which = f" of engine {engine}" if engine else ""
            number = f"{requests:.0f} request{'s' if requests > 1 else ''}"
            text = f"no progress{which} for {seconds:.0f} s with {number}"
            if seconds >= self._settings.stalled_after:
                return Verdict(False, text, "stalled")
            if seconds >= self._settings.stalled_after / 2:
                odd.append(text)
        if self._trials is not None and self._trials.stalled:
            return Verdict(False, self._trials.stalled, "stalled")
        if self._trials is not None and self._trials.odd:
            odd.append(self._trials.odd)
        for question in questions:
            if not question.answered:
                text = f"has not answered yet: {question.problem}"
                return Verdict(False, text, "starting")
        return Verdict(True, "; ".join(odd), "ok")

    def _take_metrics(self, status: int, body: bytes) -> str:
        problem = accept_ok(status, body)
        if problem:
            return problem
        return self._progress.take(body.decode(errors="replace"), self._clock())
