# SPDX-License-Identifier: Apache-2.0
"""Syslog: messages of RFC 5424 in octet counting; TLS with certificates."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import wait_until
from hypothesis import given
from hypothesis import strategies as st
from log_receivers import Rsyslog, TlsSyslog, read_frames
from plugins import LOG_REPORTER, log_settings

from lmcache_plugin_adapter.gallery.log_reporter.reading.records import Level, Record
from lmcache_plugin_adapter.gallery.log_reporter.settings import FACILITIES
from lmcache_plugin_adapter.gallery.log_reporter.targets.origin import Origin
from lmcache_plugin_adapter.gallery.log_reporter.targets.syslog_message import (
    Frame,
    framed_messages,
    split,
    timestamp,
)

ORIGIN = Origin("host", "worker", 3, 1, "worker_log_reporter")
FRAME = Frame(FACILITIES["local3"], "host", "vllm", "lmcache@32473", 8000, ORIGIN)
LINE = "ERROR 11-22 07:06:56 [core.py:12] "

TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]))


def record(text: str, **values: Any) -> Record:
    """Return a record with a text."""
    return Record(
        "/var/log/vllm.log", None, 0, 0, text, time_ns=1_795_331_216_699_123_456, **values
    )


@given(
    text=TEXT,
    logger=TEXT,
    process=TEXT,
    path=TEXT,
    pid=st.none() | st.integers(0, 2**31),
    level=st.sampled_from(Level),
)
def test_every_message_can_be_read_back(
    text: str, logger: str, process: str, path: str, pid: int | None, level: Level
) -> None:
    """Whatever stands in the fields, quotes and brackets included."""
    sent = record(text, logger=logger, process=process, pid=pid, level=level)
    sent.path = path
    (got,) = read_frames(b"".join(framed_messages(sent, FRAME)))
    assert (got.text, got.level) == (text, level.word)
    assert got.time_ns == 1_795_331_216_699_123_000
    assert got.fields.get("logger", "") == logger
    assert got.fields.get("process", "") == process
    assert got.fields.get("file", "") == path
    assert got.fields["procid"] == ("-" if pid is None else str(pid))
    assert (got.fields["role"], got.fields["worker_id"]) == ("worker", "3")
    assert got.fields["facility"] == "19"


@given(text=TEXT.map(lambda text: text * 40) | st.text("ab\n", max_size=9000))
def test_a_long_message_is_sent_in_parts(text: str) -> None:
    """None of them too long, no character cut, and all of it there."""
    frame = FRAME._replace(max_bytes=1024)
    got = list(read_frames(b"".join(framed_messages(record(text), frame))))
    assert all(len(part) < 1100 for part in framed_messages(record(text), frame))
    if len(got) > 1:
        parts = [one.fields["part"] for one in got]
        assert parts == [f"{number}/{len(got)}" for number in range(1, len(got) + 1)]
    assert "".join(one.text for one in got).replace("\n", "") == text.replace("\n", "")


@given(st.text(max_size=200), st.integers(8, 50))
def test_text_is_cut_between_characters(text: str, room: int) -> None:
    """And at line ends where there are some."""
    parts = list(split(text.encode("utf-8", "replace"), room))
    assert b"".join(parts).replace(b"\n", b"") == text.encode("utf-8", "replace").replace(
        b"\n", b""
    )
    assert all(len(part) + 3 * part.count(b"\n") <= room for part in parts)
    for part in parts:
        part.decode()


def test_times_that_nobody_can_write() -> None:
    """Become the nil value."""
    assert timestamp(10**30) == "-"
    assert timestamp(-1) == "1969-12-31T23:59:59.999999Z"


def openssl(*words: str | Path) -> None:
    """Run openssl."""
    subprocess.run(["openssl", *words], check=True, capture_output=True, timeout=60)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``ca.pem``, and of it ``server.pem`` and ``client.pem`` with their keys; ``other.pem``."""
    place = tmp_path_factory.mktemp("certificates")
    for name in ("ca", "other"):
        openssl(
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-days", "2", "-subj", f"/CN={name}"),
            *("-addext", "keyUsage=critical,keyCertSign,cRLSign"),
            *("-keyout", place / f"{name}.key", "-out", place / f"{name}.pem"),
        )
    for name in ("server", "client"):
        openssl(
            *("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-subj", f"/CN={name}", "-addext", "subjectAltName=DNS:logs.example,IP:127.0.0.1"),
            *("-keyout", place / f"{name}.key", "-out", place / f"{name}.csr"),
        )
        openssl(
            *("x509", "-req", "-in", place / f"{name}.csr", "-CA", place / "ca.pem"),
            *("-CAkey", place / "ca.key", "-days", "2", "-copy_extensions", "copy"),
            *("-out", place / f"{name}.crt"),
        )
        both = (place / f"{name}.crt").read_text() + (place / f"{name}.key").read_text()
        (place / f"{name}.pem").write_text(both)
    return place


@pytest.fixture
def run_tls(
    tmp_path: Path, certificates: Path, run_plugin: Callable[..., Any]
) -> Callable[..., Any]:
    """Start the plugin, which delivers a log of 100 lines over TLS to a port."""
    log = tmp_path / "vllm.log"
    log.write_text("".join(f"{LINE}Number {number}\n" for number in range(100)))

    def run(port: int, **options: Any) -> Any:
        syslog = {
            "host": "127.0.0.1",
            "port": port,
            "tls": True,
            "timeout": 3,
            "ca_file": str(certificates / "ca.pem"),
            **options,
        }
        settings = log_settings(tmp_path, files=str(log), syslog=syslog)
        return run_plugin(LOG_REPORTER, settings=settings)

    return run


def test_tls_to_rsyslog(tmp_path: Path, certificates: Path, run_tls: Callable[..., Any]) -> None:
    """Each line once."""
    server = Rsyslog(tmp_path / "rsyslog", certificates / "server.pem", certificates / "ca.pem")
    server.start()
    try:
        plugin = run_tls(server.port)
        wait_until(lambda: len(server.records()) >= 100, 20)
        assert plugin.stop() == 0
        assert [got.text for got in server.records()] == [f"Number {n}" for n in range(100)]
        assert not [line for line in plugin.lines if line.level != "info"]
    finally:
        server.stop()


def test_tls_down_for_a_while(
    tmp_path: Path, certificates: Path, run_tls: Callable[..., Any]
) -> None:
    """Rsyslog killed and started again: nothing is lost."""
    server = Rsyslog(tmp_path / "rsyslog", certificates / "server.pem", certificates / "ca.pem")
    plugin = run_tls(server.port)
    plugin.wait_for("cannot be reached")
    log = tmp_path / "vllm.log"
    try:
        written = 100
        for _ in range(2):
            server.start()
            for _ in range(20):
                with log.open("a") as file:
                    file.write(f"{LINE}Number {written}\n")
                written += 1
            wait_until(server.records, 20)
            server.stop()
        server.start()
        wait_until(lambda: len({got.text for got in server.records()}) == written, 20)
        assert plugin.stop() == 0
    finally:
        server.stop()


def test_tls_killed_under_load(
    tmp_path: Path, certificates: Path, run_tls: Callable[..., Any]
) -> None:
    """Rsyslog stopped with batches under way, killed, and started again: nothing is lost."""
    server = Rsyslog(tmp_path / "rsyslog", certificates / "server.pem", certificates / "ca.pem")
    server.start()
    plugin = run_tls(server.port)
    log = tmp_path / "vllm.log"
    written = 100

    def all_arrived() -> bool:
        return len({got.text for got in server.records()}) == written

    try:
        for _ in range(6):
            wait_until(all_arrived, 20)
            server.server.pause()
            for _ in range(10):
                with log.open("a") as file:
                    file.write("".join(f"{LINE}Number {written + n}\n" for n in range(50)))
                written += 50
                time.sleep(0.02)  # the load
            server.stop()
            server.start()
        wait_until(all_arrived, 20)
        assert plugin.stop() == 0
    finally:
        server.stop()


def test_tls_with_certificates_of_both(certificates: Path, run_tls: Callable[..., Any]) -> None:
    """A strict receiver, which wants the client's certificate, too; by another name."""
    receiver = TlsSyslog(certificates / "server.pem", certificates / "ca.pem")
    receiver.start()
    try:
        plugin = run_tls(
            receiver.port, cert_file=str(certificates / "client.pem"), server_name="logs.example"
        )
        wait_until(lambda: len(receiver.records()) >= 100, 20)
        assert plugin.stop() == 0
        assert [got.text for got in receiver.records()] == [f"Number {n}" for n in range(100)]
        assert receiver.records()[0].level == "error"
    finally:
        receiver.stop()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"ca_file": "other.pem"}, "its certificate: "),
        ({"server_name": "elsewhere.example"}, "its certificate: "),
        ({"cert_file": None}, "cannot be reached: .*certificate"),
        ({"cert_file": "missing.pem"}, "cannot use cert_file"),
        ({"ca_file": "missing.pem"}, "cannot use ca_file"),
    ],
)
def test_bad_certificates(
    certificates: Path, run_tls: Callable[..., Any], options: dict[str, Any], reason: str
) -> None:
    """Nothing is delivered, and what is wrong is said once; the plugin lives on."""
    receiver = TlsSyslog(certificates / "server.pem", certificates / "ca.pem")
    receiver.start()
    own: dict[str, Any] = {"cert_file": "client.pem", **options}
    for key in ("ca_file", "cert_file"):
        if own.get(key):
            own[key] = str(certificates / own[key])
    try:
        plugin = run_tls(receiver.port, **own)
        line = plugin.wait_for(re.compile(reason))
        assert line.level == "warning"
        assert "cannot be reached" in line.text
        assert "retrying" in line.text
        wait_until(lambda: receiver.connections != 1, 20)
        assert plugin.stop() == 0
        assert receiver.records() == []
        plugin.wait_for("100 records and 0 bytes that were not read wait for the next start")
    finally:
        receiver.stop()


def test_long_records_arrive_whole(tmp_path: Path, run_plugin: Callable[..., Any]) -> None:
    """Rsyslog would cut them; the parts have all of it."""
    log = tmp_path / "vllm.log"
    lines = [f"line {number} " + "x" * 90 for number in range(300)]
    log.write_text("\r\n".join(LINE + line for line in lines) + "\n")
    server = Rsyslog(tmp_path / "rsyslog")
    server.start()
    try:
        syslog = {"host": "127.0.0.1", "port": server.port}
        settings = log_settings(tmp_path, files=[str(log)], syslog=syslog)
        plugin = run_plugin(LOG_REPORTER, settings=settings)
        wait_until(lambda: len(server.records()) >= 4, 20)
        assert plugin.stop() == 0
        got = server.records()
        assert [one.fields["part"] for one in got] == ["1/4", "2/4", "3/4", "4/4"]
        assert "#012".join(one.text for one in got) == "#012".join(lines)
    finally:
        server.stop()
