# SPDX-License-Identifier: Apache-2.0
"""``doctor`` names what an earlier installation has left, if it hides the entry point."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

from lmcache_plugin_adapter.cli.doctor import doctor
from lmcache_plugin_adapter.cli.stale_distribution import find_stale_distribution
from lmcache_plugin_adapter.hosts.upstream_names import ENTRY_POINT, ENTRY_POINT_GROUP

HOOK = "lmcache_plugin_adapter.hosts.vllm.hook:register"


def write(site: Path, version: str, value: str | None, kind: str = "dist-info") -> Path:
    """Write the metadata of a distribution of this package."""
    info = site / f"lmcache_plugin_adapter-{version}.{kind}"
    info.mkdir(parents=True)
    text = f"Metadata-Version: 2.1\nName: lmcache-plugin-adapter\nVersion: {version}\n"
    (info / ("METADATA" if kind == "dist-info" else "PKG-INFO")).write_text(text)
    if value is not None:
        (info / "entry_points.txt").write_text(f"[{ENTRY_POINT_GROUP}]\n{ENTRY_POINT} = {value}\n")
    return info


@pytest.fixture
def first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that is first on ``sys.path``, before a good installation."""
    write(tmp_path / "second", "9", HOOK)
    monkeypatch.syspath_prepend(str(tmp_path / "second"))
    (tmp_path / "first").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path / "first"))
    importlib.invalidate_caches()
    return tmp_path / "first"


def entry_point(capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    """Return level and text of what doctor says of the entry point."""
    importlib.invalidate_caches()
    doctor(as_json=True)
    findings = json.loads(capsys.readouterr().out)["findings"]
    (found,) = [one for one in findings if one["subject"] == "entry point"]
    return found["level"], found["text"]


def test_nothing_stale(first: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The entry point is there."""
    assert find_stale_distribution(ENTRY_POINT_GROUP, ENTRY_POINT) == ""
    level, text = entry_point(capsys)
    assert level == "ok"
    assert HOOK in text


@pytest.mark.parametrize("kind", ["dist-info", "egg-info"])
def test_a_distribution_without_the_entry_point_hides_it(
    first: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    """Both are named with their places and versions."""
    stale = write(first, "0.0.1", None, kind)
    level, text = entry_point(capsys)
    assert level == "off"
    assert f"'{stale}' (version 0.0.1)" in text
    assert "hides the one of" in text
    assert "version 9" in text


def test_an_entry_point_that_names_a_module_that_is_gone(
    first: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As of a version with other modules."""
    stale = write(first, "0.0.1", "lmcache_plugin_adapter.vllm_plugin:register")
    level, text = entry_point(capsys)
    assert level == "off"
    assert str(stale) in text
    assert "lmcache_plugin_adapter.vllm_plugin" in text
