# SPDX-License-Identifier: Apache-2.0
"""Reload after changes in the locations (``auto_reload``)."""

from __future__ import annotations

import errno
import os

from lmcache_plugin_adapter.contract.log_records import ERROR
from lmcache_plugin_adapter.supervisor.planning.loader import PluginLoader
from lmcache_plugin_adapter.supervisor.planning.search import Search
from lmcache_plugin_adapter.supervisor.planning.watched import (
    silent_file_systems,
    watched_directories,
)

ON = {"auto_reload": True}
UP = "echo up; exec sleep 60"


def test_changes_are_reloaded(plugin, plugins, engine) -> None:
    """New, changed and removed files, also in directories that are new themselves."""
    plugin("all_x.sh", UP)
    one = engine(ON)
    one.wait_log(r"\[all_x\] up ", 20)
    plugin("all_y.sh", UP)
    one.wait_log(r"\[all_y\] Started", 20)
    (plugins / "sub").mkdir()
    one.wait_log(r"Reloaded: .*2 unchanged", 20)
    plugin("sub/all_z.sh", UP)
    one.wait_log(r"\[all_z\] Started", 20)
    plugin("all_x.sh", "echo changed; exec sleep 60")
    one.wait_log(r"\[all_x\] changed ", 20)
    (plugins / "all_y.sh").unlink()
    one.wait_log(r"\[all_y\] Stopped", 20)


def test_a_config_map_is_reloaded_as_one_change(engine, tmp_path) -> None:
    """Kubernetes replaces the link ``..data``; the names beside it lead through it."""
    mount = tmp_path / "mount"
    for version in ("1", "2"):
        directory = mount / f"..{version}"
        directory.mkdir(parents=True)
        (directory / "all_x.sh").write_text(f"echo version {version}; exec sleep 60")
    (mount / "..data").symlink_to("..1")
    (mount / "all_x.sh").symlink_to("..data/all_x.sh")
    one = engine(ON, locations=[str(mount)])
    one.wait_log(r"\[all_x\] version 1 ", 20)
    (mount / "..data_tmp").symlink_to("..2")
    os.rename(mount / "..data_tmp", mount / "..data")
    one.wait_log(r"\[all_x\] version 2 ", 20)


def test_a_location_that_is_replaced_or_made_later(engine, tmp_path) -> None:
    """The directory that holds it reports that."""
    for release in ("1", "2"):
        (tmp_path / "deploy" / release).mkdir(parents=True)
        path = tmp_path / "deploy" / release / "all_x.sh"
        path.write_text(f"echo release {release}; exec sleep 60")
    current, late = tmp_path / "deploy" / "current", tmp_path / "deploy" / "late"
    current.symlink_to("1")
    one = engine(ON, locations=[str(current), str(late)])
    one.wait_log(r"\[all_x\] release 1 ", 20)
    (tmp_path / "deploy" / "new").symlink_to("2")
    os.rename(tmp_path / "deploy" / "new", current)
    one.wait_log(r"\[all_x\] release 2 ", 20)
    late.mkdir()
    (late / "all_late.sh").write_text(UP)
    one.wait_log(r"\[all_late\] Started", 20)


def test_a_location_that_is_a_directory_is_replaced(engine, tmp_path) -> None:
    """It reports its own move; what changes beside it is of no interest."""
    for release in ("1", "2"):
        (tmp_path / "deploy" / release).mkdir(parents=True)
        path = tmp_path / "deploy" / release / "all_x.sh"
        path.write_text(f"echo release {release}; exec sleep 60")
    location = tmp_path / "deploy" / "1"
    assert watched_directories([str(location)], [str(location / "all_x.sh")]) == (str(location),)
    one = engine(ON, locations=[str(location)])
    one.wait_log(r"\[all_x\] release 1 ", 20)
    os.rename(location, tmp_path / "deploy" / "old")
    os.rename(tmp_path / "deploy" / "2", location)
    one.wait_log(r"\[all_x\] release 2 ", 20)


def test_without_the_setting_nothing_is_watched(plugin, engine) -> None:
    """And files that cannot be plugins are no reason with it."""
    plugin("all_x.sh", UP)
    one = engine({})
    one.wait_log(r"\[all_x\] up ", 20)
    plugin("all_y.sh", UP)
    assert set(one.ask("reload")["started"]) == {"all_y"}
    assert "auto_reload" not in one.log()


def test_file_systems_that_report_nothing_are_named(mocker) -> None:
    """Each mount once, by the longest one that holds a directory."""
    text = (
        "1 0 0:1 / / rw - overlay overlay rw\n"
        "2 1 0:2 / /mnt/shared rw,relatime shared:1 - nfs4 server:/x rw\n"
        "3 2 0:3 / /mnt/shared/local rw - ext4 /dev/x rw\n"
    )
    mocker.patch("builtins.open", mocker.mock_open(read_data=text))
    directories = ["/mnt/shared", "/mnt/shared/a", "/mnt/shared/local/b", "/mnt/sharedness"]
    (problem,) = silent_file_systems(directories)
    assert problem.text.startswith(
        "Changes that other hosts make below '/mnt/shared' (nfs4) are not noticed (auto_reload)"
    )


def test_a_reload_that_cannot_begin_is_logged(mocker) -> None:
    """Nobody reads the answer to a reload of its own."""
    problem = OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    mocker.patch.object(Search, "start", side_effect=problem)
    services, answer = mocker.Mock(), mocker.Mock()
    services.loop.attempt = lambda callback: callback()
    loader = PluginLoader(services, mocker.Mock(), mocker.Mock(), mocker.Mock(), mocker.Mock())
    loader.reload(answer)
    text = "annot search for plugins: resource temporarily unavailable"
    services.events.log.assert_called_once_with(ERROR, f"C{text}")
    answer.assert_called_once_with({"ok": False, "error": f"c{text}"})
