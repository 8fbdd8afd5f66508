# SPDX-License-Identifier: Apache-2.0
"""The metric reporter's parts on their own: buffer, trouble, settings."""

from __future__ import annotations

import re
import time

import msgspec
import pytest
from harness import wait_until
from metric_stubs import Gate
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceResponse,
)

from lmcache_plugin_adapter import kit
from lmcache_plugin_adapter.gallery.metric_reporter.recurring_problem import RecurringProblem
from lmcache_plugin_adapter.gallery.metric_reporter.settings import (
    MetricReporter,
    Otlp,
    Pushgateway,
)
from lmcache_plugin_adapter.gallery.metric_reporter.source import choose
from lmcache_plugin_adapter.gallery.metric_reporter.targets.buffer import Batch, Buffer
from lmcache_plugin_adapter.gallery.metric_reporter.targets.otlp import OtlpKind
from lmcache_plugin_adapter.gallery.metric_reporter.targets.pushgateway import PushgatewayKind
from lmcache_plugin_adapter.gallery.metric_reporter.targets.sender import Sender


class Clock:
    """A clock that is set."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Tell the time."""
        return self.now


def batch(samples: int, born: float = 1000.0, name: str = "") -> Batch:
    """Return a request."""
    return Batch(name.encode(), samples, born)


def test_a_buffer_gives_up_its_oldest_by_samples_and_by_age() -> None:
    """And counts them."""
    clock = Clock()
    buffer = Buffer(samples=100, seconds=60, clock=clock)
    for number in range(5):
        buffer.put(batch(30, clock.now, str(number)))
        clock.now += 1
    assert buffer.samples == 90
    assert buffer.dropped() == 60
    taken = buffer.take(0)
    assert taken is not None
    assert taken.body == b"2"
    buffer.put_back(taken)
    assert buffer.dropped() == 0
    clock.now = 1063.5
    assert buffer.dropped() == 60
    taken = buffer.take(0)
    assert taken is not None
    assert taken.body == b"4"
    buffer.put(batch(90, clock.now))
    buffer.put_back(taken)  # there is no room for it any more
    assert buffer.dropped() == 30
    assert buffer.samples == 90


def test_a_buffer_of_the_latest_keeps_that_only_and_calls_it_no_loss() -> None:
    """For a Pushgateway."""
    buffer = Buffer(samples=1, seconds=float("inf"), latest_only=True)
    first = batch(10, name="a")
    buffer.put(first)
    buffer.put(batch(10, name="b"))
    buffer.put_back(first)
    taken = buffer.take(0)
    assert taken is not None
    assert taken.body == b"b"
    assert buffer.take(0) is None
    assert buffer.dropped() == 0


def test_trouble_is_said_at_once_then_once_a_period_with_its_count() -> None:
    """Until it is over."""
    clock = Clock()
    said: list[str] = []
    trouble = RecurringProblem(60, said.append, clock)
    for _ in range(5):
        trouble.happened(lambda n: f"{n} of them")
        clock.now += 10
    assert said == ["1 of them"]
    clock.now += 10
    trouble.remind()
    assert said == ["1 of them", "4 of them"]
    assert trouble.over() == 60.0
    assert trouble.over() is None
    trouble.happened(lambda n: f"{n} again")
    assert said[-1] == "1 again"


def test_trouble_that_comes_and_goes_is_said_a_few_times_a_period() -> None:
    """Such as one bad server of several behind an address: each second request fails."""
    clock = Clock()
    said: list[str] = []
    trouble = RecurringProblem(60, said.append, clock)
    over = 0
    for _ in range(3600):
        trouble.happened(lambda n: f"{n} of them")
        over += trouble.over() is not None
        clock.now += 1
    assert said[:4] == ["1 of them", "1 of them", "1 of them", "58 of them"]
    assert len(said) == over <= 3 * 61
    assert sum(int(line.split()[0]) for line in said) > 3500


@pytest.mark.parametrize("url", ["http://h:s3cret/metrics", "http://h:0/", "http://h:s3cret"])
def test_what_only_looks_like_an_address_ends_it_for_good(url: str) -> None:
    """On the scheduler; workers do not need it. An exception would end it again and again."""
    settings = msgspec.convert({"vllm_metrics_url": url}, MetricReporter)
    scheduler = kit.Context(role="SCHEDULER", worker_id=-1, worker_count=2, name="x", config={})
    with pytest.raises(kit.SettingsError, match=r"\.x\.settings\.vllm_metrics_url': it ") as error:
        choose(scheduler, settings)
    assert "s3cret" not in str(error.value)
    worker = kit.Context(role="WORKER", worker_id=0, worker_count=2, name="x", config={})
    assert choose(worker, settings) == []


@pytest.mark.parametrize("local", ["0.0.0.0", "[::]", "127.0.0.1", "127.1.1.1", "LocalHost"])
def test_an_address_of_this_host_only_is_no_instance(local: str) -> None:
    """It would be the same on every host."""
    settings = MetricReporter(vllm_metrics_url=f"http://{local}:8000/metrics")
    scheduler = kit.Context(role="SCHEDULER", worker_id=-1, worker_count=1, name="x", host="node7")
    (where,) = choose(scheduler, settings)
    assert where.instance == "node7:8000"


def test_all_that_a_target_refuses_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    """Also what was refused after the first line, when the target accepts samples again."""
    with Gate() as gate:
        gate.status = 400
        kind = PushgatewayKind(Pushgateway(url=gate.url), {"job": "j"})
        buffer = Buffer(samples=10_000, seconds=float("inf"))
        sender = Sender(kind, buffer, 3600)
        sender.start()
        for _ in range(8):
            buffer.put(Batch(b"x 1\n", 27, time.monotonic(), "PUT"))
        wait_until(lambda: sender.lost == 8 * 27, 20)
        gate.status = None
        buffer.put(Batch(b"x 1\n", 27, time.monotonic(), "PUT"))
        wait_until(lambda: gate.accepted, 20)
        sender.finish(time.monotonic() + 20)
        sender.join(20)
    printed = capsys.readouterr().out
    assert sum(int(n) for n in re.findall(r"(\d+) samples are lost", printed)) == 8 * 27


def test_a_part_that_a_server_refuses_is_never_more_than_was_sent(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A warning without refused points is no loss, whatever number stands in an answer."""
    answer = ExportMetricsServiceResponse()
    answer.partial_success.error_message = "too many labels"
    with Gate() as gate:
        gate.answer_body = answer.SerializeToString()
        buffer = Buffer(samples=10_000, seconds=float("inf"))
        sender = Sender(OtlpKind(Otlp(url=gate.url), {}, None), buffer, 3600)
        sender.start()
        buffer.put(Batch(b"x", 27, time.monotonic()))
        wait_until(lambda: gate.accepted and not sender.unsent()[0], 20)
        assert sender.lost == 0
        answer.partial_success.rejected_data_points = 1000
        gate.answer_body = answer.SerializeToString()
        buffer.put(Batch(b"x", 27, time.monotonic()))
        wait_until(lambda: sender.lost, 20)
        sender.finish(time.monotonic() + 20)
        sender.join(20)
    assert sender.lost == 27
    printed = capsys.readouterr().out
    assert "accepted all points, with a warning: too many labels" in printed
    assert "accepted only a part: 27 points refused: too many labels" in printed
