# SPDX-License-Identifier: Apache-2.0
"""Sources over TLS, several of them, and what of their metrics is sent."""

from __future__ import annotations

import ssl
import subprocess
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from harness import wait_until
from metric_stubs import EngineMetrics, Gate, reply

from lmcache_plugin_adapter import kit
from lmcache_plugin_adapter.gallery.metric_reporter import exposition
from lmcache_plugin_adapter.gallery.metric_reporter.labelling import Labeller
from lmcache_plugin_adapter.gallery.metric_reporter.relabelling import step_of
from lmcache_plugin_adapter.gallery.metric_reporter.reporter import Reporter
from lmcache_plugin_adapter.gallery.metric_reporter.settings import MetricReporter, Relabel
from lmcache_plugin_adapter.gallery.metric_reporter.source import SourceError, choose

TEXT = """\
# TYPE vllm:requests counter
vllm:requests_total{engine="0",model_name="m"} 5
vllm:requests_created{engine="0",model_name="m"} 1
# TYPE vllm:seconds histogram
vllm:seconds_bucket{le="1",handler="/health"} 1
vllm:seconds_bucket{le="+Inf",handler="/health"} 2
vllm:seconds_sum{handler="/health"} 3
vllm:seconds_count{handler="/health"} 2
# TYPE python_gc gauge
python_gc 1
"""


def scheduler(role: str = "SCHEDULER") -> kit.Context:
    """Return an engine process without an internal API."""
    return kit.Context(
        role=role, worker_id=-1, worker_count=2, name="x", host="node7", config={}, engine_pid=None
    )


def settings_of(**section: Any) -> MetricReporter:
    """Return settings."""
    return msgspec.convert(section, MetricReporter)


def sent(**section: Any) -> list[str]:
    """Return the series of ``TEXT`` that are sent, as lines."""
    settings = settings_of(**section)
    steps = [step_of(one) for one in settings.relabel]
    labeller = Labeller({}, settings.drop, settings.keep, steps)
    written = exposition.write(labeller.apply(exposition.parse(TEXT))).decode()
    return [line for line in written.splitlines() if not line.startswith("#")]


class _Vllm(EngineMetrics):
    """An HTTPS server that demands a token."""

    token = "right"

    def answer(self, handler: Any) -> None:
        """Check the token first."""
        if handler.headers.get("Authorization") != f"Bearer {self.token}":
            reply(handler, 401)
            return
        super().answer(handler)


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """Return a file with a self-signed certificate of 127.0.0.1 and its key."""
    path = tmp_path / "server.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", "/CN=vllm", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", str(path), "-out", str(tmp_path / "cert.pem")),
        ],
        check=True,
        capture_output=True,
    )
    path.write_bytes(path.read_bytes() + (tmp_path / "cert.pem").read_bytes())
    return path


def test_vllm_is_read_over_https_with_a_token(certificate: Path) -> None:
    """With the certificate that it has; without it, or without the token, the reason is told."""
    with _Vllm() as engine:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        assert engine._server is not None
        engine._server.socket = context.wrap_socket(engine._server.socket, server_side=True)
        url = engine.url.replace("http:", "https:")

        def read(**options: Any) -> str:
            section = {"sources": [{"url": url, **options}]}
            (where,) = choose(scheduler(), settings_of(**section))
            assert where.instance == f"node7:{engine.port}"
            return where.read(20)

        trusted = {"ca_file": str(certificate), "bearer_token": "right"}
        assert "lmcache:looks_total" in read(**trusted)
        assert "lmcache:looks_total" in read(verify=False, bearer_token="right")
        with pytest.raises(SourceError, match=r"(?i)certificate"):
            read(bearer_token="right")
        with pytest.raises(SourceError, match="HTTP 401"):
            read(**{**trusted, "bearer_token": "wrong"})


def test_several_sources_are_sent_with_their_own_instances() -> None:
    """A source that is away does not delay the others; workers leave them to the scheduler."""
    with EngineMetrics() as one, EngineMetrics() as other, Gate() as gate:
        settings = settings_of(
            sources=[{"url": one.url}, {"url": other.url}, {"url": "http://127.0.0.1:1"}],
            pushgateway={"url": gate.url},
        )
        assert choose(scheduler("WORKER"), settings) == []
        sources = choose(scheduler(), settings)
        reporters = [Reporter(scheduler(), settings, where) for where in sources]
        for reporter in reporters:
            reporter.start()
            reporter.read()
        wait_until(lambda: len({request.path for request in gate.accepted}) == 3, 20, "pushes")
        for reporter in reporters:
            for sender in reporter._senders:
                sender.finish(time.monotonic() + 20)
                sender.join(20)


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ({"keep": ["vllm:requests*"]}, ["vllm:requests_total", "vllm:requests_created"]),
        ({"keep": ["python_*", "vllm:*_sum"]}, ["vllm:seconds_sum", "python_gc"]),
        ({"keep": ["vllm:*"], "drop": ["vllm:seconds*"]}, ["vllm:requests_total"]),
        (
            {"relabel": [{"action": "drop", "source_labels": ["handler"], "regex": "/health.*"}]},
            ["vllm:requests_total", "python_gc"],
        ),
        (
            {"relabel": [{"action": "keep", "source_labels": ["__name__"], "regex": "python_.+"}]},
            ["python_gc"],
        ),
    ],
)
def test_keep_and_drop(section: dict[str, Any], expected: list[str]) -> None:
    """By name, by pattern, and by labels."""
    names = [line.partition("{")[0].partition(" ")[0] for line in sent(**section)]
    unwanted = {"vllm:requests_created"} - set(expected)
    assert [name for name in dict.fromkeys(names) if name not in unwanted] == expected


def test_relabelling() -> None:
    """As Prometheus does it."""
    lines = sent(
        relabel=[
            {"action": "drop", "source_labels": ["__name__"], "regex": "vllm:seconds.*|python.*"},
            {"action": "drop", "source_labels": ["__name__"], "regex": ".*_created"},
            {
                "source_labels": ["model_name", "engine"],
                "regex": "(.*);(.*)",
                "target_label": "who",
                "replacement": "${1}/$2$$",
            },
            {"action": "labelmap", "regex": "model_(.+)", "replacement": "m_$1"},
            {"action": "labeldrop", "regex": "engine|model_name"},
            {"source_labels": ["__name__"], "regex": "vllm:(.*)", "target_label": "__name__"},
        ]
    )
    assert lines == ['requests_total{who="m/0$",m_name="m"} 5.0']


def test_a_renamed_histogram_stays_one() -> None:
    """Its parts keep their endings, and their type."""
    rule = Relabel(source_labels=["__name__"], regex="vllm:(.*)", target_label="__name__")
    families = Labeller({}, steps=[step_of(rule)]).apply(exposition.parse(TEXT))
    (histogram,) = (family for family in families if family.kind == "histogram")
    assert histogram.name == "seconds"
    assert {sample.name for sample in histogram.samples} == {
        "seconds_bucket",
        "seconds_sum",
        "seconds_count",
    }


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ({"regex": "(", "target_label": "x"}, "regex is no regular expression"),
        ({"regex": "x"}, "replace needs target_label"),
        ({"action": "hashmod"}, "Invalid enum value"),
    ],
)
def test_a_wrong_rule_is_refused(rule: dict[str, Any], text: str) -> None:
    """With its reason."""
    with pytest.raises(msgspec.ValidationError, match=text.replace("(", r"\(")):
        msgspec.convert(rule, Relabel)
