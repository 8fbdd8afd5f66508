# SPDX-License-Identifier: Apache-2.0
"""An address whose path is a secret is shown by nobody, not even where it is no address."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from lmcache_plugin_adapter import kit
from lmcache_plugin_adapter.gallery.alert_reporter.settings import AlertSettings
from lmcache_plugin_adapter.gallery.heartbeat.settings import Heartbeat

SECRET = "T0/B0/S3CRET"
FORGOTTEN = f"hooks.example.com/services/{SECRET}"
"""The scheme is missing."""

GOOD = "http://127.0.0.1:9"


def read(kind: type[msgspec.Struct], settings: dict[str, Any]) -> None:
    """Read a plugin's settings, whose problems are printed."""
    plugins = {"x": {"settings": settings}}
    config = {"extra_config": {"runtime_plugins": {"plugins": plugins}}}
    kit.Context(role="WORKER", worker_id=0, worker_count=1, name="x", config=config).settings(kind)


@pytest.mark.parametrize(
    ("kind", "settings", "key"),
    [
        (AlertSettings, {"webhooks": [{"url": FORGOTTEN}]}, "webhooks[0].url"),
        (AlertSettings, {"webhooks": [FORGOTTEN]}, "webhooks[0]"),
        (AlertSettings, {"webhooks": FORGOTTEN}, "webhooks"),
        (Heartbeat, {"http": {"url": FORGOTTEN}}, "http.url"),
        (Heartbeat, {"http": {"url": GOOD, "fail_url": FORGOTTEN}}, "http.fail_url"),
        (Heartbeat, {"http": {"url": GOOD, "stop_url": FORGOTTEN}}, "http.stop_url"),
        (Heartbeat, {"http": FORGOTTEN}, "http"),
        (Heartbeat, {"consul": {"url": GOOD, "token": f"{SECRET} "}}, "consul"),
    ],
)
def test_no_secret_is_shown_where_a_setting_is_wrong(
    kind: type[msgspec.Struct],
    settings: dict[str, Any],
    key: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The key is, and what is accepted."""
    read(kind, settings)
    said = capsys.readouterr().out
    assert f"Cannot use setting 'extra_config.runtime_plugins.plugins.x.settings.{key}'" in said
    assert "S3CRET" not in said
