# SPDX-License-Identifier: Apache-2.0
"""The metric reporter: read the engine's metrics, queue them for every target, end in time."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from lmcache_plugin_adapter import kit
from lmcache_plugin_adapter.gallery.metric_reporter.targets.buffer import Buffer
from lmcache_plugin_adapter.gallery.metric_reporter.targets.sender import Sender
from lmcache_plugin_adapter.messages.wording import counted

from . import exposition, source
from .labelling import Labeller, own_labels
from .reading import Reading, counter, gauge
from .recurring_problem import RecurringProblem, times
from .relabelling import step_of
from .settings import Buffered, MetricReporter

if TYPE_CHECKING:
    from collections.abc import Callable

    from lmcache_plugin_adapter.gallery.metric_reporter.targets.kind import Kind
    from lmcache_plugin_adapter.kit import Context, Stop

    from .exposition import Family
    from .source import SourceReader

LAST_READING = 0.3
"""Part of the grace period for the last reading; the rest is for sending."""

STARTING = 300.0
"""Seconds for which an engine may load and warm up its model before it answers."""

EXIT = 0.25
"""Part of the grace period reserved for the exit itself, for a busy machine."""

SHARED = "Worker 0 runs in the scheduler's process: its reporter sends the metrics of both"

TAKEN = (
    "another process than this engine listens there, such as a second engine on this host or "
    "another data-parallel replica; give each engine its own internal_api_server_port_start"
)


def report(ctx: Context, stop: Stop) -> int:
    """Reading the engine's metrics until the plugin is to stop; return the exit code.

    Raises:
        SettingsError: There is no target.
    """
    settings = ctx.settings(MetricReporter)
    if why := settings.why_unusable(ctx.settings_key):
        raise kit.SettingsError(why)
    sources = source.choose(ctx, settings)
    if not sources:
        reason = source.why_none(ctx)
        # With vLLM's metrics on the scheduler, workers need no internal API.
        say = kit.info if settings.vllm_metrics_url and ctx.role == "WORKER" else kit.warning
        say(f"Nothing to report: {reason}")
        return 0
    reporters = [Reporter(ctx, settings, where) for where in sources]
    for reporter in reporters:
        reporter.start()
    for _ in kit.every(settings.interval, jitter=0.02, stop=stop):
        for reporter in reporters:
            reporter.read()
    # All at once: each may need the whole grace period.
    endings = [
        threading.Thread(target=reporter.finish, args=(stop,), daemon=True)
        for reporter in reporters[1:]
    ]
    for ending in endings:
        ending.start()
    reporters[0].finish(stop)
    for ending in endings:
        ending.join(stop.remaining())
    return 0


class Reporter:
    """Run the reading thread and one sender for each target.

    Args:
        ctx: The plugin's context.
        settings: The settings.
        where: The source of the metrics.
    """

    def __init__(self, ctx: Context, settings: MetricReporter, where: SourceReader) -> None:
        self._ctx = ctx
        self._source = where
        self._timeout = settings.scrape_timeout
        self._interval = settings.interval
        own = own_labels(ctx, settings.job, settings.instance, where.instance, settings.labels)
        steps = [step_of(one) for one in settings.relabel]
        self._labeller = Labeller(own, settings.drop, settings.keep, steps)
        self._senders = _senders(settings, own, ctx.engine_pid)
        self._prints = settings.target == "console"
        self._failing = RecurringProblem(settings.say_every, self._log_failure)
        self._begun = time.monotonic()
        self._reading: threading.Thread | None = None
        self._delivering = threading.Lock()
        self._broken: BaseException | None = None
        self._answered = False
        self._aside = False
        self._sent = False
        self._ending = False
        self._closed = False
        self._last_ms = 0

    def start(self) -> None:
        """Start the senders, and log source and targets."""
        for sender in self._senders:
            sender.start()
        targets = ", ".join(sender.kind.shown for sender in self._senders) or "the log"
        kit.info(
            f"Reads {self._source.name} ({self._source.shown}) every {self._interval:g} s "
            f"and sends to {targets}"
        )

    def read(self, timeout: float | None = None) -> None:
        """Read in a thread, unless the previous reading still waits for its answer."""
        if self._broken is not None:
            raise self._broken
        if self._reading is None or not self._reading.is_alive():
            self._reading = threading.Thread(
                target=self._work, args=(timeout or self._timeout,), name="read", daemon=True
            )
            self._reading.start()

    def finish(self, stop: Stop) -> None:
        """Read once more, and send the queues while the grace period lasts."""
        grace = stop.remaining()
        end = time.monotonic() + grace * (1 - EXIT)
        self._ending = True
        self._await_reading(grace * LAST_READING / 2)  # the one in flight
        self.read(max(min(grace * LAST_READING / 2, self._timeout), 0.05))
        self._await_reading(grace * (LAST_READING / 2 + 0.05))
        with self._delivering:
            self._closed = True  # a later report would follow the end
            if not self._aside:
                self._queue_end()
        for sender in self._senders:
            sender.finish(end)
        for sender in self._senders:
            sender.join(max(end + grace * EXIT / 3 - time.monotonic(), 0.0))
            requests, samples = sender.unsent()
            if requests:
                kit.warning(
                    f"Ends with {counted(samples, 'sample')} (requests: {requests}) not sent to "
                    f"{sender.kind.shown}"
                )

    def _await_reading(self, seconds: float) -> None:
        if self._reading is not None:
            self._reading.join(seconds)

    def _work(self, timeout: float) -> None:
        try:
            where = self._source
            if source.shared_with_worker(self._ctx, where):
                self._step_aside(kit.info, SHARED)
            elif where.is_taken():
                # LMCache starts its internal API only in the first replica of a node.
                say = kit.info if self._ctx.dp_rank else kit.warning
                self._step_aside(say, f"Does not read {where.name} ({where.shown}): {TAKEN}")
            else:
                self._aside = False
                self._read(timeout)
        except BaseException as error:  # noqa: BLE001 - the main thread raises it
            self._broken = error

    def _read(self, timeout: float) -> None:
        begun = time.monotonic()
        now = int(time.time() * 1000)
        if self._last_ms >= now > self._last_ms - 1000:
            now = self._last_ms + 1  # a small step of the clock; targets judge a larger one
        self._last_ms = now
        families: list[Family] = []
        try:
            families = self._source.own(exposition.parse(self._source.read(timeout)))
            up = True
        except (source.SourceError, exposition.ExpositionError) as error:
            up = False
            self._failed(str(error))
        else:
            self._recovered()
        count = sum(len(family.samples) for family in families)
        families += self._own_metrics(up, count, time.monotonic() - begun)
        found = Reading(now, begun, self._labeller.apply(families))
        with self._delivering:
            if self._closed:
                return
            self._sent = True
            if self._prints:
                kit.info(f"Would send {counted(found.samples, 'sample')}:")
                lines = (exposition.line_of(s) for one in found.families for s in one.samples)
                kit.info("\n".join(lines))
            for sender in self._senders:
                for batch in sender.kind.encode(found):
                    sender.buffer.put(batch)

    def _own_metrics(self, up: bool, count: int, seconds: float) -> list[Family]:
        lost = [({"target": sender.kind.key}, float(sender.lost)) for sender in self._senders]
        return [
            gauge("up", "Whether the engine's metrics could be read.", float(up)),
            gauge("scrape_duration_seconds", "How long the reading took.", seconds),
            gauge("scrape_samples_scraped", "How many samples it had.", float(count)),
            counter(
                "lmcache_metric_reporter_lost_samples_total",
                "Samples that a target refused, or that its buffer had no room for.",
                lost,
            ),
        ]

    def _failed(self, reason: str) -> None:
        what = f"Cannot read {self._source.name} ({self._source.shown}): {reason}"
        if self._ending:
            kit.debug(what)  # the engine stops, too
            return
        self._failing.happened(lambda n: f"{what}; retrying{times(n)}")

    def _log_failure(self, text: str) -> None:
        # An engine starts its plugins before it answers.
        starting = not self._answered and time.monotonic() - self._begun < STARTING
        (kit.info if starting else kit.warning)(text)

    def _recovered(self) -> None:
        lasted = self._failing.over()
        if lasted is not None:
            kit.info(f"Reads {self._source.name} again, after {lasted:.0f} s")
        self._answered = True

    def _step_aside(self, say: Callable[[str], None], why: str) -> None:
        if self._aside:
            return
        self._aside = True
        say(why)
        with self._delivering:
            if self._sent:
                self._sent = False
                self._queue_end()

    def _queue_end(self) -> None:
        now = max(int(time.time() * 1000), self._last_ms + 1)
        for sender in self._senders:
            for batch in sender.kind.encode_end(now, time.monotonic()):
                sender.buffer.put(batch)


def _senders(settings: MetricReporter, own: dict[str, str], engine_pid: int | None) -> list[Sender]:
    """Return a sender for each target; import only the libraries of these targets."""
    senders: list[Sender] = []

    def add(kind: Kind, buffer: Buffer) -> None:
        senders.append(Sender(kind, buffer, settings.say_every))

    if settings.pushgateway is not None:
        from lmcache_plugin_adapter.gallery.metric_reporter.targets.pushgateway import (
            PushgatewayKind,
        )

        add(
            PushgatewayKind(settings.pushgateway, own),
            Buffer(samples=1, seconds=float("inf"), latest_only=True),
        )
    if settings.remote_write is not None:
        from lmcache_plugin_adapter.gallery.metric_reporter.targets.remote_write import (
            RemoteWriteKind,
        )

        add(RemoteWriteKind(settings.remote_write), _buffer(settings.remote_write))
    if settings.otlp is not None:
        from lmcache_plugin_adapter.gallery.metric_reporter.targets.otlp import OtlpKind

        add(OtlpKind(settings.otlp, own, engine_pid), _buffer(settings.otlp))
    return senders


def _buffer(target: Buffered) -> Buffer:
    return Buffer(samples=target.buffer_samples, seconds=target.buffer_seconds)
