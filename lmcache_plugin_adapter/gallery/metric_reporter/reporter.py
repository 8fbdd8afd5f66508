"""The metric reporter's main loop: look at the engine, give every target its share, end well."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from lmcache_plugin_adapter import kit
from lmcache_plugin_adapter.gallery.metric_reporter.targets.buffer import Buffer
from lmcache_plugin_adapter.gallery.metric_reporter.targets.sender import Kind, Lane

from . import exposition, source
from .labelling import Labeller, own_labels
from .report import Report, counter, gauge
from .settings import Buffered, MetricReporter
from .trouble import Trouble, times

if TYPE_CHECKING:
    from collections.abc import Callable

    from lmcache_plugin_adapter.kit import Context, Stop

    from .exposition import Family
    from .source import Source

LAST_LOOK = 0.3
"""Part of the grace period that the last reading may take; the rest is for sending."""

STARTING = 300.0
"""Seconds in which an engine may load and warm up its model before it answers."""

EXIT = 0.25
"""Part of the grace period that is left for the exit itself, on a machine that is busy."""

SHARED = "Worker 0 is in the scheduler's process: its reporter sends the metrics of both"

TAKEN = (
    "it is another process than this engine's that listens there, such as a second engine on this "
    "host or another data-parallel replica; give each engine an internal_api_server_port_start of "
    "its own"
)


def report(ctx: Context, stop: Stop) -> int:
    """Run until the engine ends.

    Raises:
        SettingsError: There is nowhere to send to.
    """
    settings = ctx.settings(MetricReporter)
    if not any((settings.pushgateway, settings.remote_write, settings.otlp)):
        raise kit.SettingsError(
            "there is no target: give one of pushgateway, remote_write and otlp in "
            f"'{ctx.settings_key}'"
        )
    where = source.choose(ctx, settings)
    if where is None:
        reason = source.why_none(ctx)
        # With vLLM's metrics on the scheduler, workers without an API are as they should be.
        say = kit.info if settings.vllm_metrics_url and ctx.role == "WORKER" else kit.warning
        say(f"Nothing to report: {reason}")
        return 0
    reporter = Reporter(ctx, settings, where)
    reporter.start()
    for _ in kit.every(settings.interval, jitter=0.02, stop=stop):
        reporter.look()
    reporter.finish(stop)
    return 0


class Reporter:
    """Everything that runs beside the main thread: one thread that reads, one for each target.

    Args:
        ctx: Whose engine it is.
        settings: What is wanted.
        where: What is read.
    """

    def __init__(self, ctx: Context, settings: MetricReporter, where: Source) -> None:
        self._ctx = ctx
        self._source = where
        self._timeout = settings.scrape_timeout
        self._interval = settings.interval
        own = own_labels(ctx, settings.job, settings.instance or where.instance, settings.labels)
        self._labeller = Labeller(own, settings.drop)
        self._lanes = _lanes(settings, own, ctx.engine_pid)
        self._failing = Trouble(settings.say_every, self._complain)
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
        """Start the targets' threads, and say what is done."""
        for lane in self._lanes:
            lane.start()
        targets = ", ".join(f"{lane.kind.key} ({lane.kind.target.shown})" for lane in self._lanes)
        kit.info(
            f"Reads {self._source.name} ({self._source.shown}) every {self._interval:g} s "
            f"and sends to {targets}"
        )

    def look(self, timeout: float | None = None) -> None:
        """Read in a thread of its own, unless the reading before still waits for its answer."""
        if self._broken is not None:
            raise self._broken
        if self._reading is None or not self._reading.is_alive():
            self._reading = threading.Thread(
                target=self._look, args=(timeout or self._timeout,), name="look", daemon=True
            )
            self._reading.start()

    def finish(self, stop: Stop) -> None:
        """Read once more, and send what there is as long as the grace period lasts."""
        grace = stop.remaining()
        end = time.monotonic() + grace * (1 - EXIT)
        self._ending = True
        self._await_reading(grace * LAST_LOOK / 2)  # the one that was under way
        self.look(max(min(grace * LAST_LOOK / 2, self._timeout), 0.05))
        self._await_reading(grace * (LAST_LOOK / 2 + 0.05))
        with self._delivering:
            self._closed = True  # what comes later would come after the farewell
            if not self._aside:
                self._say_goodbye()
        for lane in self._lanes:
            lane.finish(end)
        for lane in self._lanes:
            lane.join(max(end + grace * EXIT / 3 - time.monotonic(), 0.0))
            requests, samples = lane.unsent()
            if requests:
                kit.warning(
                    f"Ends with {samples} samples (requests: {requests}) not sent to "
                    f"{lane.kind.key} ({lane.kind.target.shown})"
                )

    def _await_reading(self, seconds: float) -> None:
        if self._reading is not None:
            self._reading.join(seconds)

    def _look(self, timeout: float) -> None:
        try:
            where = self._source
            if source.shared_with_worker(self._ctx, where):
                self._step_aside(kit.info, SHARED)
            elif where.is_taken():
                # LMCache starts its internal API in the first replica of a node only.
                say = kit.info if self._ctx.dp_rank else kit.warning
                self._step_aside(say, f"Does not read {where.name} ({where.shown}): {TAKEN}")
            else:
                self._aside = False
                self._read(timeout)
        except BaseException as error:  # noqa: BLE001 - the main thread ends with it
            self._broken = error

    def _read(self, timeout: float) -> None:
        begun = time.monotonic()
        now = int(time.time() * 1000)
        if self._last_ms >= now > self._last_ms - 1000:
            now = self._last_ms + 1  # a step of the clock; a larger one is for targets to judge
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
        found = Report(now, begun, self._labeller.apply(families))
        with self._delivering:
            if self._closed:
                return
            self._sent = True
            for lane in self._lanes:
                for parcel in lane.kind.pack(found):
                    lane.buffer.put(parcel)

    def _own_metrics(self, up: bool, count: int, seconds: float) -> list[Family]:
        lost = [({"target": lane.kind.key}, float(lane.lost)) for lane in self._lanes]
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
            kit.debug(what)  # it ends, too, or has ended
            return
        self._failing.happened(lambda n: f"{what}; tries again{times(n)}")

    def _complain(self, text: str) -> None:
        # Engines start their plugins before they answer.
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
                self._say_goodbye()

    def _say_goodbye(self) -> None:
        now = max(int(time.time() * 1000), self._last_ms + 1)
        for lane in self._lanes:
            for parcel in lane.kind.farewell(now, time.monotonic()):
                lane.buffer.put(parcel)


def _lanes(settings: MetricReporter, own: dict[str, str], engine_pid: int | None) -> list[Lane]:
    """Return a lane for each target; only what is used is imported."""
    lanes: list[Lane] = []

    def add(kind: Kind, buffer: Buffer) -> None:
        lanes.append(Lane(kind, buffer, settings.say_every))

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
    return lanes


def _buffer(target: Buffered) -> Buffer:
    return Buffer(samples=target.buffer_samples, seconds=target.buffer_seconds)
