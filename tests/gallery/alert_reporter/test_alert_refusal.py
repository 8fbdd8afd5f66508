# SPDX-License-Identifier: Apache-2.0
"""One alert that Alertmanager refuses costs that alert only."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec
import pytest
from alerting import RealAlertmanager
from harness import wait_until

from lmcache_plugin_adapter.gallery.alert_reporter.alerts import Alert
from lmcache_plugin_adapter.gallery.alert_reporter.targets.alertmanager import Alertmanager
from lmcache_plugin_adapter.gallery.alert_reporter.targets.delivery import AlertDelivery


def alert(name: str, **annotations: str) -> Alert:
    """Return a firing alert."""
    return Alert({"alertname": name, "severity": "critical"}, annotations, time.time())


def test_a_bad_alert_does_not_silence_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The batch is refused as a whole; then each alert is sent alone."""
    with RealAlertmanager(tmp_path / "alertmanager") as manager:
        target = msgspec.convert({"url": manager.url}, Alertmanager)
        manager.pause()  # so that the alerts are sent together
        delivery = AlertDelivery(target, 3600)
        delivery.put(alert("First"))
        delivery.put(alert("EngineStalled", **{"not-a-name": "x"}))
        delivery.put(alert("EngineDied"))
        manager.resume()
        manager.wait_for("EngineDied")
        manager.wait_for("First")
        wait_until(lambda: not delivery.undelivered, 30)
        delivery.finish(10)
        assert delivery.join() == []
        assert "EngineStalled" not in manager.alerts()
    lines = [line for line in capsys.readouterr().out.splitlines() if "refused by" in line]
    assert all("(EngineStalled): HTTP 400" in line for line in lines), lines
    assert lines
