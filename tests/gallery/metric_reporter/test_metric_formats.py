# SPDX-License-Identifier: Apache-2.0
"""What the metric reporter makes of an engine's metrics, without servers."""

from __future__ import annotations

import gzip
import math
import struct
from typing import Any

import cramjam
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.metrics.v1.metrics_pb2 import AGGREGATION_TEMPORALITY_CUMULATIVE
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Summary
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from lmcache_plugin_adapter.gallery.http_client.answer import Answer
from lmcache_plugin_adapter.gallery.metric_reporter import exposition
from lmcache_plugin_adapter.gallery.metric_reporter.exposition import (
    ExpositionError,
    Family,
    Sample,
    parse,
)
from lmcache_plugin_adapter.gallery.metric_reporter.labelling import Labeller, own_labels
from lmcache_plugin_adapter.gallery.metric_reporter.reading import Reading
from lmcache_plugin_adapter.gallery.metric_reporter.settings import (
    MetricReporter,
    Otlp,
    Pushgateway,
    RemoteWrite,
)
from lmcache_plugin_adapter.gallery.metric_reporter.targets.otlp import OtlpKind
from lmcache_plugin_adapter.gallery.metric_reporter.targets.otlp_points import Starts
from lmcache_plugin_adapter.gallery.metric_reporter.targets.pushgateway import (
    PushgatewayKind,
    group_path,
)
from lmcache_plugin_adapter.gallery.metric_reporter.targets.remote_write import RemoteWriteKind
from lmcache_plugin_adapter.gallery.metric_reporter.targets.remote_write_schema import WriteRequest
from lmcache_plugin_adapter.kit import Context

OWN = {"job": "lmcache", "instance": "node:7000", "role": "worker", "rank": "0", "dp_rank": "0"}
URL = "http://127.0.0.1:1/"


def report(text: str, time_ms: int = 1_700_000_000_000) -> Reading:
    """Return a report as the reporter makes it."""
    return Reading(time_ms, 0.0, Labeller(OWN).apply(parse(text)))


def remote_write(**settings: Any) -> RemoteWriteKind:
    """Return what encodes for remote write."""
    return RemoteWriteKind(RemoteWrite(url=URL, **settings))


def otlp(**settings: Any) -> OtlpKind:
    """Return what encodes for OTLP."""
    return OtlpKind(Otlp(url=URL, **settings), OWN, 4711)


def points(batches: list[Any]) -> dict[tuple[tuple[str, str], ...], tuple[float, int]]:
    """Return what requests of remote write carry, each series once."""
    found = {}
    for batch in batches:
        request = WriteRequest.FromString(bytes(cramjam.snappy.decompress_raw(batch.body)))
        for series in request.timeseries:
            key = tuple((label.name, label.value) for label in series.labels)
            assert key not in found
            (sample,) = series.samples
            found[key] = (sample.value, sample.timestamp)
    return found


def metrics(batches: list[Any]) -> dict[str, Any]:
    """Return the metrics in an OTLP request, by name."""
    (batch,) = batches
    request = ExportMetricsServiceRequest.FromString(gzip.decompress(batch.body))
    (resource,) = request.resource_metrics
    (scope,) = resource.scope_metrics
    return {metric.name: metric for metric in scope.metrics}


def pairs(attributes: Any) -> dict[str, Any]:
    """Return attributes as a mapping."""
    return {
        one.key: one.value.string_value
        if one.value.HasField("string_value")
        else one.value.int_value
        for one in attributes
    }


# --- the text format ------------------------------------------------------------


def registry() -> CollectorRegistry:
    """Return one of each kind, with values that are hard to write."""
    found = CollectorRegistry()
    Counter("lmcache:requests", 'Of all\nkinds, with "quotes" and \\', ["model"], registry=found)
    counter = Counter("plain", "Help", ["model"], registry=found)
    for value in ('a"b', "back\\slash", "new\nline", "ü}{,=", ""):
        counter.labels(value).inc(1e17)
    gauge = Gauge("gauge", "Help", registry=found)
    gauge.set(float("nan"))
    Gauge("inf", "Help", registry=found).set(float("-inf"))
    histogram = Histogram("seconds", "Help", ["x"], buckets=(0.1, 1, 5), registry=found)
    for seconds in (0.05, 0.5, 2, 7, 7):
        histogram.labels("y").observe(seconds)
    Summary("sizes", "Help", registry=found).observe(3)
    return found


def flat(families: Any) -> list[tuple[str, dict[str, str], str]]:
    """Return all samples in a form that can be compared."""
    return [(s.name, dict(s.labels), repr(float(s.value))) for f in families for s in f.samples]


def test_what_prometheus_client_writes_is_read_as_its_own_parser_reads_it() -> None:
    """All samples, all kinds and helps."""
    text = generate_latest(registry()).decode()
    ours, theirs = parse(text), list(text_string_to_metric_families(text))
    assert flat(ours) == flat(f for f in theirs if f.samples)
    kinds = {family.name: family.kind for family in ours}
    assert kinds["plain_total"] == "counter"
    assert kinds["seconds"] == "histogram"
    assert kinds["sizes"] == "summary"
    assert kinds["gauge"] == "gauge"


def test_what_is_written_is_read_again_the_same() -> None:
    """A text goes round without a change."""
    families = parse(generate_latest(registry()).decode())
    again = parse(exposition.write(families).decode())
    assert flat(again) == flat(families)
    assert [(f.name, f.kind, f.help) for f in again] == [(f.name, f.kind, f.help) for f in families]


@given(
    st.dictionaries(
        st.from_regex(r"[a-zA-Z_][a-zA-Z0-9_]{0,8}", fullmatch=True),
        st.text(st.characters(exclude_categories=["Cs"])),
        max_size=4,
    ),
    st.floats(),
)
def test_any_label_and_value_goes_round(labels: dict[str, str], value: float) -> None:
    """Whatever stands in a label."""
    family = Family("a_metric", "gauge", "", [Sample("a_metric", labels, value)])
    (again,) = parse(exposition.write([family]).decode())
    assert flat([again]) == flat([family])


@pytest.mark.parametrize(
    "line",
    [
        "no value",
        "a{b=1} 2",
        'a{b="1" c="2"} 3',
        'a{b="1",b="2"} 3',
        "a 1 2 3",
        "{} 1",
        f"a 1 {2**63}",
    ],
)
def test_a_text_that_is_no_exposition_is_refused_with_its_line(line: str) -> None:
    """Such as the page of a proxy."""
    with pytest.raises(ExpositionError, match="line 2"):
        parse(f"good 1\n{line}\n")


def test_counters_without_total_keep_their_name_and_timestamps_are_read() -> None:
    """Nothing is renamed."""
    (family,) = parse("# TYPE b counter\nb 7 1700000000123\n")
    assert family == Family("b", "counter", "", [Sample("b", {}, 7.0, 1700000000123)])


# --- labels -------------------------------------------------------------------


def test_what_the_engine_says_under_our_names_is_renamed_as_prometheus_does() -> None:
    """``role`` and ``job`` are ours; theirs are kept."""
    text = 'm{role="scheduler",exported_role="x",job="j",model="m",empty=""} 1\n'
    (family,) = Labeller(OWN).apply(parse(text))
    (sample,) = family.samples
    assert sample.labels == {
        **OWN,
        "exported_exported_role": "scheduler",
        "exported_role": "x",
        "exported_job": "j",
        "model": "m",
    }


def test_labels_of_the_settings_go_over_our_own_and_empty_ones_go_away() -> None:
    """A worker has a rank, a scheduler none."""
    worker = Context(role="WORKER", worker_id=3, worker_count=4, name="x", host="node", dp_rank=1)
    assert own_labels(worker, "j", "i", "i", {"host": "", "cluster": "eu"}) == {
        "job": "j",
        "instance": "i",
        "role": "worker",
        "rank": "3",
        "dp_rank": "1",
        "cluster": "eu",
    }
    scheduler = Context(role="SCHEDULER", worker_id=-1, worker_count=4, name="x", host="node")
    assert "rank" not in own_labels(scheduler, "j", None, "i", {})


def test_metrics_are_dropped_by_name_and_a_series_comes_once() -> None:
    """A target would refuse the whole request."""
    text = 'python_gc_x 1\nkept{a="1"} 1\nkept{a="1"} 2\nprocess_cpu 3\n'
    labelled = Labeller({}, ["python_gc_*", "process_*"]).apply(parse(text))
    assert flat(labelled) == [("kept", {"a": "1"}, "1.0")]


# --- remote write -------------------------------------------------------------


def test_a_write_request_has_sorted_labels_and_the_time_of_the_reading() -> None:
    """With the metric's name among them."""
    batches = remote_write().encode(report('Zm{z="1",A="2"} 5\n'))
    ((series, point),) = points(batches).items()
    names = [name for name, _ in series]
    assert names == sorted(names)
    assert dict(series) == {**OWN, "__name__": "Zm", "z": "1", "A": "2"}
    assert point == (5.0, 1_700_000_000_000)


def test_large_reports_are_cut_into_requests() -> None:
    """None has more samples than is set."""
    text = "".join(f'm{{n="{n}"}} {n}\n' for n in range(25))
    batches = remote_write(request_samples=10).encode(report(text))
    assert [batch.samples for batch in batches] == [10, 10, 5]
    assert len(points(batches)) == 25


def test_series_that_go_are_marked_and_so_are_all_at_the_end() -> None:
    """With the one NaN that Prometheus takes for an end."""
    kind = remote_write()
    kind.encode(report("a 1\nb 2\nc 3 1600000000000\n", 1000))
    found = {dict(s)["__name__"]: p for s, p in points(kind.encode(report("a 1\n", 2000))).items()}
    assert set(found) == {"a", "b"}  # c has times of its own and may only pause
    assert struct.pack("<d", found["b"][0]) == struct.pack("<Q", 0x7FF0000000000002)
    assert found["b"][1] == 2000
    ends = points(kind.encode_end(2000, 0.0))
    ((series, (value, time_ms)),) = ends.items()
    assert dict(series)["__name__"] == "a"
    assert struct.pack("<d", value) == struct.pack("<Q", 0x7FF0000000000002)
    assert time_ms == 2001  # after the last value, not in its place
    assert kind.encode_end(3000, 0.0) == []


def test_a_sample_with_a_time_of_its_own_is_sent_once() -> None:
    """As long as its time stays the same."""
    kind = remote_write()
    assert len(points(kind.encode(report("a 1 1600000000000\n", 1000)))) == 1
    assert kind.encode(report("a 1 1600000000000\n", 2000)) == []
    ((_, point),) = points(kind.encode(report("a 2 1600000001000\n", 3000))).items()
    assert point == (2.0, 1_600_000_001_000)


# --- Pushgateway ----------------------------------------------------------------


def test_the_groups_path_takes_any_value() -> None:
    """A slash goes as base64, the rest percent-encoded."""
    own = {"job": "a b", "instance": "x/y", "role": "worker", "rank": "0", "cluster": "eu"}
    assert group_path(own) == "/metrics/job/a%20b/instance@base64/eC95/role/worker/rank/0"


def test_a_push_replaces_the_group_and_has_no_timestamps() -> None:
    """Which a Pushgateway would refuse."""
    kind = PushgatewayKind(Pushgateway(url=URL), OWN)
    (batch,) = kind.encode(report("a 1 1600000000000\n"))
    assert batch.method == "PUT"
    assert b"1600000000000" not in batch.body
    assert [p.method for p in kind.encode_end(0, 0.0)] == ["DELETE"]
    assert PushgatewayKind(Pushgateway(url=URL, delete_on_stop=False), OWN).encode_end(0, 0.0) == []


# --- OTLP -----------------------------------------------------------------------

NANO = 1_700_000_000_000_000_000


def test_counters_become_cumulative_sums_since_their_created() -> None:
    """And ``_created`` is no metric of its own."""
    text = (
        '# HELP a_total Help\n# TYPE a_total counter\na_total{x="1"} 5\n'
        '# TYPE a_created gauge\na_created{x="1"} 1.6999999995e+09\n'
    )
    found = metrics(otlp().encode(report(text)))
    assert set(found) == {"a_total"}
    metric = found["a_total"]
    assert metric.description == "Help"
    assert metric.sum.is_monotonic
    assert metric.sum.aggregation_temporality == AGGREGATION_TEMPORALITY_CUMULATIVE
    (point,) = metric.sum.data_points
    assert point.as_double == 5.0
    assert point.time_unix_nano == NANO
    assert point.start_time_unix_nano == 1_699_999_999_500_000_000
    own = {k: v for k, v in OWN.items() if k not in ("job", "instance")}
    assert pairs(point.attributes) == {**own, "x": "1"}


def test_without_created_a_counter_counts_since_it_was_first_seen_or_fell() -> None:
    """A fall is a new beginning, at the time of the last value before it."""
    kind = otlp()
    starts = []
    for time_ms, value in ((1000, 5), (2000, 7), (3000, 1), (4000, 2)):
        found = metrics(kind.encode(report(f"# TYPE a counter\na {value}\n", time_ms)))
        (point,) = found["a"].sum.data_points
        starts.append(point.start_time_unix_nano // 1_000_000)
    assert starts == [1000, 1000, 2000, 2000]


def test_a_series_made_while_it_was_read_keeps_its_beginning() -> None:
    """Its ``_created`` is after the reading's time; a later one is a new beginning."""
    kind = otlp()
    starts = []
    for time_ms, value, created in ((1000, 5, 1.002), (2000, 7, 1.002), (3000, 9, 2.5)):
        text = f"# TYPE a counter\na {value}\n# TYPE a_created gauge\na_created {created}\n"
        (point,) = metrics(kind.encode(report(text, time_ms)))["a"].sum.data_points
        starts.append(point.start_time_unix_nano // 1_000_000)
    assert starts == [1000, 1000, 2500]


def test_gauges_and_what_has_no_type_become_gauges() -> None:
    """NaN is a value, too."""
    found = metrics(otlp().encode(report("# TYPE g gauge\ng NaN\nu 3\n")))
    (point,) = found["g"].gauge.data_points
    assert math.isnan(point.as_double)
    assert point.start_time_unix_nano == 0
    assert found["u"].gauge.data_points[0].as_double == 3.0


def test_histograms_have_explicit_bounds_and_counts_of_each_bucket() -> None:
    """Prometheus' buckets add up, OTLP's do not."""
    text = generate_latest(registry()).decode()
    metric = metrics(otlp().encode(report(text)))["seconds"]
    assert metric.histogram.aggregation_temporality == AGGREGATION_TEMPORALITY_CUMULATIVE
    (point,) = metric.histogram.data_points
    assert list(point.explicit_bounds) == [0.1, 1.0, 5.0]
    assert list(point.bucket_counts) == [1, 1, 1, 2]
    assert point.count == 5
    assert point.sum == pytest.approx(16.55)
    assert pairs(point.attributes)["x"] == "y"


def test_a_histogram_whose_buckets_fall_is_left_out() -> None:
    """It would be refused with everything else in the request."""
    bad = '# TYPE h histogram\nh_bucket{le="1"} 5\nh_bucket{le="+Inf"} 3\nh_count 3\nh_sum 1\n'
    assert set(metrics(otlp().encode(report(f"{bad}u 1\n")))) == {"u"}


def test_summaries_keep_their_quantiles() -> None:
    """Also one whose name ends as a part of another's would."""
    text = '# TYPE x_sum summary\nx_sum{quantile="0.5"} 2\nx_sum_sum 9\nx_sum_count 4\n'
    (point,) = metrics(otlp().encode(report(text)))["x_sum"].summary.data_points
    assert (point.count, point.sum) == (4, 9.0)
    assert [(q.quantile, q.value) for q in point.quantile_values] == [(0.5, 2.0)]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ('# TYPE h histogram\nh_bucket{le="1"} NaN\nh_bucket{le="+Inf"} 3\nh_count 3\n', set()),
        ('# TYPE h histogram\nh_bucket{le="1"} 1\nh_bucket{le="+Inf"} +Inf\n', set()),
        ('# TYPE h histogram\nh_bucket{le="one"} 1\nh_bucket{le="+Inf"} 3\n', set()),
        ("# TYPE h histogram\nh_bucket 3\nh_count 3\n", set()),
        ('# TYPE s summary\ns{quantile="0.5"} 1\ns_count NaN\n', set()),
        ("# TYPE s summary\ns_sum 1\ns_count -2\n", set()),
        ('# TYPE s summary\ns{quantile="half"} 1\ns_count 2\n', {"s"}),
        ("# TYPE c counter\nc_total 1\n# TYPE c_created gauge\nc_created NaN\n", {"c_total"}),
        ("# TYPE c counter\nc_total 1\n# TYPE c_created gauge\nc_created -5\n", {"c_total"}),
        ("g 1 -5\n", {"g"}),
        (f"g 1 {2**62}\n", {"g"}),
    ],
)
def test_what_otlp_has_no_word_for_does_no_harm_to_the_rest(text: str, names: set[str]) -> None:
    """It would end the reporter, for all targets."""
    assert set(metrics(otlp().encode(report(f"{text}u 1\n")))) == {*names, "u"}


def test_the_resource_says_who_it_is() -> None:
    """Names are OpenTelemetry's."""
    (batch,) = otlp(resource={"deployment.environment": "prod"}).encode(report("a 1\n"))
    request = ExportMetricsServiceRequest.FromString(gzip.decompress(batch.body))
    (group,) = request.resource_metrics
    assert pairs(group.resource.attributes) == {
        "service.name": "lmcache",
        "service.instance.id": "node:7000",
        "process.pid": 4711,
        "deployment.environment": "prod",
    }


def test_otlp_counts_points_as_its_servers_do() -> None:
    """A histogram is one point of many samples; a sample that is not sent is not counted."""
    text = (
        "# TYPE h histogram\n"
        'h_bucket{le="1"} 1\nh_bucket{le="+Inf"} 2\nh_sum 3\nh_count 2\nh_created 1\n'
        "# TYPE c counter\nc_total 1\n# TYPE g gauge\ng 1\n"
    )
    (batch,) = otlp().encode(report(text))
    assert batch.samples == 3


def test_what_was_only_partly_taken_is_read_from_the_answer() -> None:
    """OTLP accepts a request and refuses points of it."""
    answer = ExportMetricsServiceResponse()
    answer.partial_success.rejected_data_points = 3
    answer.partial_success.error_message = "too old"
    raw = answer.SerializeToString()
    assert otlp().partly_refused(Answer(200, "OK", "", raw)) == (3, "too old")
    assert otlp().partly_refused(Answer(200, "OK", "", b"")) is None
    assert otlp().partly_refused(Answer(200, "OK", "{}", b"{}")) is None


def test_series_with_similar_names_have_their_own_start() -> None:
    """Counters ``x`` and ``x_total``, and a histogram whose name ends in ``_total``."""
    starts = Starts()
    text = (
        "# TYPE x counter\nx 5\n# TYPE x_total counter\nx_total 9\n"
        '# TYPE h_total histogram\nh_total_bucket{le="+Inf"} 1\nh_total_sum 1\nh_total_count 1\n'
        "# TYPE h_total_created gauge\nh_total_created 1\n"
        "# TYPE g gauge\ng_created 7\n"
    )
    begun = set()
    for time_ms in (2000, 3000, 4000):
        families = exposition.parse(text)
        starts.read(Reading(time_ms, 0.0, families))
        assert [one.name for one in families if starts.is_start(one)] == ["h_total_created"]
        begun.add(
            (
                starts.start("x", {}, 5, time_ms, is_counter=True),
                starts.start("x_total", {}, 9, time_ms, is_counter=True),
                starts.start("h_total", {}, 1, time_ms),
            )
        )
        starts.forget_others()
    assert begun == {(2000 * 10**6, 2000 * 10**6, 1000 * 10**6)}


def test_the_defaults_are_within_their_own_limits() -> None:
    """An empty section is one."""
    assert MetricReporter().interval >= MetricReporter().scrape_timeout
