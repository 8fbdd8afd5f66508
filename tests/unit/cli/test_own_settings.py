# SPDX-License-Identifier: Apache-2.0
"""``check`` reports of plugins' own settings what the plugins would report at their start."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from cli_under_test import command

if TYPE_CHECKING:
    from pathlib import Path

WHERE = "extra_config.runtime_plugins.plugins"
PLUGIN = """\
import msgspec
from lmcache_plugin_adapter import kit

class Settings(msgspec.Struct, kw_only=True):
    interval: float = 60
    url: str

__plugin_settings__ = Settings

print("this is imported")
if __name__ == "__main__":
    open("it_ran", "w").close()
"""


def problems(directory: Path, locations: object, plugins: dict[str, Any]) -> list[tuple[str, str]]:
    """Return level and text of each problem that ``check --json`` reports."""
    config = {
        "runtime_plugin_locations": locations,
        "extra_config": {"runtime_plugins": {"plugins": plugins}},
    }
    (directory / "lmcache.yaml").write_text(json.dumps(config))
    done = command("check", "-c", "lmcache.yaml", "--json", cwd=directory)
    document = json.loads(done.stdout)
    found = [(each["level"], each["text"]) for each in document["problems"]]
    assert (done.returncode != 0) == any(level == "error" for level, _ in found), done
    return found


def test_a_file_that_declares_its_settings(tmp_path: Path) -> None:
    """Unknown keys, wrong and missing values; the file is imported, and does not run."""
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "all_x.py").write_text(PLUGIN)
    good = {"all_x": {"settings": {"url": "http://x", "interval": 5}}}
    assert problems(tmp_path, "plugins", good) == []
    bad = {"all_x": {"settings": {"interval": "often", "intervall": 5}}}
    found = problems(tmp_path, "plugins", bad)
    key = f"{WHERE}.all_x.settings"
    assert [level for level, _ in found] == ["warning", "error", "error"]
    assert found[0][1].startswith(f"Unknown setting '{key}.intervall'")
    assert found[1][1].startswith(f"Cannot use setting '{key}.interval': found 'often'")
    assert found[2][1].startswith(f"Missing setting '{key}.url'")
    ((level, text),) = problems(tmp_path, "plugins", {"all_x": {"settings": ["x"]}})[:1]
    assert level == "error"
    assert "accepted is a mapping" in text
    assert not (tmp_path / "it_ran").exists()


def test_other_files_are_not_imported(tmp_path: Path) -> None:
    """Without a declaration at the top level, or with one that is text in it, nothing runs."""
    (tmp_path / "plugins").mkdir()
    path = tmp_path / "plugins" / "all_x.py"
    path.write_text("open('it_ran', 'w')\ndef f():\n    __plugin_settings__ = 1\n")
    assert problems(tmp_path, "plugins", {"all_x": {"settings": {"x": 1}}}) == []
    assert not (tmp_path / "it_ran").exists()


def test_annotations_are_resolved_in_the_file(tmp_path: Path) -> None:
    """Also those that Python keeps as text."""
    path = tmp_path / "all_x.py"
    path.write_text(
        "from __future__ import annotations\nimport typing as t\nimport msgspec\n"
        "class Own(msgspec.Struct):\n    x: t.Annotated[int, msgspec.Meta(gt=0)] = 1\n"
        "__plugin_settings__ = Own\n"
    )
    ((level, text),) = problems(tmp_path, [str(path)], {"all_x": {"settings": {"x": 0}}})
    assert (level, "settings.x': found 0" in text) == ("error", True)
    assert not list(tmp_path.glob("__pycache__"))


def test_a_module_that_cannot_be_imported_is_a_warning(tmp_path: Path) -> None:
    """Also a declaration of something else."""
    (tmp_path / "plugins").mkdir()
    path = tmp_path / "plugins" / "all_x.py"
    path.write_text("1 / 0\n__plugin_settings__ = 1\n")
    ((level, text),) = problems(tmp_path, "plugins", {})
    assert level == "warning"
    assert text.startswith(f"Cannot check the settings in '{WHERE}.all_x.settings'")
    assert "ZeroDivisionError" in text
    path.write_text("__plugin_settings__ = 1\n")
    ((level, text),) = problems(tmp_path, "plugins", {})
    assert (level, "no class derived from msgspec.Struct" in text) == ("warning", True)


def test_the_ready_plugins_declare_theirs(tmp_path: Path) -> None:
    """Each reports a key that it does not know."""
    names = (
        *("scheduler_heartbeat", "scheduler_log_reporter"),
        *("all_metric_reporter", "all_alert_reporter"),
    )
    plugins = {name: {"settings": {"no_such_key": 1}} for name in names}
    found = problems(tmp_path, [f"pkg:{name}" for name in names], plugins)
    texts = [text for _, text in found]
    for name in names:
        key = f"{WHERE}.{name}.settings.no_such_key"
        assert any(f"Unknown setting '{key}'" in text for text in texts), (name, texts)


def test_the_ready_plugins_need_a_target(tmp_path: Path) -> None:
    """They would exit at once: an error for each, also if only the key is misspelt."""
    words = {
        "scheduler_heartbeat": "has none of 'etcd', 'consul' and 'http'",
        "scheduler_log_reporter": "No target: set 'syslog', 'loki' or 'otlp'",
        "all_metric_reporter": "There is no target",
        "all_alert_reporter": "No target for alerts",
    }
    locations = [f"pkg:{name}" for name in words]
    misspelt = {name: {"setting": {"target": "console"}} for name in words}
    misspelt["scheduler_heartbeat"] = {"settings": {"etdc": {"url": "http://x"}}}
    found = problems(tmp_path, locations, misspelt)
    errors = [text for level, text in found if level == "error"]
    assert len(errors) == len(words)
    for name, text in words.items():
        assert any(text in one and f"{WHERE}.{name}.settings" in one for one in errors), errors
    right = {name: {"settings": {"target": "console"}} for name in words}
    assert problems(tmp_path, locations, right) == []
