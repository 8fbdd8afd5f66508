# SPDX-License-Identifier: Apache-2.0
"""Who may change a plugin: a table of made-up file systems, then real files."""

from __future__ import annotations

import os
import shlex
import stat
import subprocess
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

import lmcache_plugin_adapter
from lmcache_plugin_adapter.planner.permissions import Exposure, FileFacts, PermissionRules

if TYPE_CHECKING:
    from pathlib import Path

ROOT, ENGINE, STRANGER = 0, 1000, 1234
PLUGIN = "/etc/plugins/worker_x.py"


def entry(mode: int, uid: int = ROOT, gid: int = 0) -> os.stat_result:
    """Make up what lstat says."""
    return os.stat_result((mode, 1, 1, 1, uid, gid, 0, 0, 0, 0))


def directory(mode: int = 0o755, uid: int = ROOT) -> os.stat_result:
    """Make up a directory."""
    return entry(stat.S_IFDIR | mode, uid)


def plain(mode: int = 0o644, uid: int = ROOT) -> os.stat_result:
    """Make up a file."""
    return entry(stat.S_IFREG | mode, uid)


def link(uid: int = ROOT) -> os.stat_result:
    """Make up a symbolic link."""
    return entry(stat.S_IFLNK | 0o777, uid)


@dataclass
class MadeUp:
    """A file system in a dictionary; counts how often it is asked."""

    entries: dict[str, os.stat_result]
    links: dict[str, str] = field(default_factory=dict)
    read_only: tuple[str, ...] = ()
    asked: list[str] = field(default_factory=list)

    def lstat(self, path: str) -> os.stat_result:
        """Look an entry up."""
        self.asked.append(path)
        if path in self.entries:
            return self.entries[path]
        raise FileNotFoundError(path)

    def readlink(self, path: str) -> str:
        """Look a link up."""
        return self.links[path]

    def is_read_only(self, path: str) -> bool:
        """Tell what was made read-only."""
        return any(path == top or path.startswith(top + "/") for top in self.read_only)


def judge(files: MadeUp, path: str = PLUGIN, uid: int = ENGINE) -> list[tuple[bool, str, str]]:
    """Return for each finding whether it refuses, its path, and the mend."""
    files.entries.setdefault("/", directory())
    found = PermissionRules(files, uid).check(path)
    return [(item.refuse, item.path, item.repair) for item in found]


def tree(
    file: os.stat_result | None = None,
    plugins: os.stat_result | None = None,
    etc: os.stat_result | None = None,
    read_only: tuple[str, ...] = (),
) -> MadeUp:
    """Make up /etc/plugins/worker_x.py, all of it safe where not told otherwise."""
    entries = {
        "/etc": etc or directory(),
        "/etc/plugins": plugins or directory(),
        PLUGIN: file or plain(),
    }
    return MadeUp(entries, read_only=read_only)


STICKY = 0o1777
CASES = {
    "root's file in root's directories": (tree(), []),
    "the engine's own file": (tree(plain(uid=ENGINE), directory(uid=ENGINE)), []),
    "everyone writes the file": (
        tree(plain(0o666)),
        [(True, PLUGIN, f"chmod go-w {PLUGIN}")],
    ),
    "everyone but the group writes the file": (
        tree(plain(0o602)),
        [(True, PLUGIN, f"chmod o-w {PLUGIN}")],
    ),
    "a group writes the file": (tree(plain(0o664)), [(False, PLUGIN, f"chmod g-w {PLUGIN}")]),
    "everyone writes its directory": (
        tree(plugins=directory(0o777)),
        [(True, "/etc/plugins", "chmod go-w /etc/plugins")],
    ),
    "everyone writes a directory further up": (
        tree(etc=directory(0o757)),
        [(True, "/etc", "chmod o-w /etc")],
    ),
    "a group writes its directory": (
        tree(plugins=directory(0o775)),
        [(False, "/etc/plugins", "chmod g-w /etc/plugins")],
    ),
    "a ConfigMap: everyone could write, but it is mounted read-only": (
        tree(plain(0o666), directory(0o777), read_only=("/etc/plugins",)),
        [],
    ),
    "sticky directory, root's entry": (tree(plugins=directory(STICKY)), []),
    "sticky directory, the engine's entry": (
        tree(plain(uid=ENGINE), directory(STICKY)),
        [],
    ),
    "sticky directory, a stranger's entry": (
        tree(plain(uid=STRANGER), directory(STICKY)),
        [
            (True, PLUGIN, f"chown -h {ENGINE} {PLUGIN}"),
        ],
    ),
    "sticky directory on the way, a stranger's directory below": (
        tree(plugins=directory(uid=STRANGER), etc=directory(STICKY)),
        [
            (True, "/etc/plugins", f"chown -h {ENGINE} /etc/plugins"),
        ],
    ),
    "sticky directory of a group, a stranger's entry": (
        tree(plain(uid=STRANGER), directory(0o1775)),
        [
            (False, PLUGIN, f"chown -h {ENGINE} {PLUGIN}"),
        ],
    ),
    "sticky does not protect a file that everyone writes": (
        tree(plain(0o646), directory(STICKY)),
        [(True, PLUGIN, f"chmod o-w {PLUGIN}")],
    ),
    "a stranger's file": (
        tree(plain(uid=STRANGER)),
        [(False, PLUGIN, f"chown -h {ENGINE} {PLUGIN}")],
    ),
    "a stranger's directory": (
        tree(plugins=directory(uid=STRANGER)),
        [(False, "/etc/plugins", f"chown -h {ENGINE} /etc/plugins")],
    ),
}


@pytest.mark.parametrize(("files", "findings"), CASES.values(), ids=CASES)
def test_each_case_is_judged(files: MadeUp, findings: list[tuple[bool, str, str]]) -> None:
    """Refused, warned about or nothing, with the command that mends it."""
    assert judge(files) == findings


def test_an_engine_of_root_refuses_a_strangers_file() -> None:
    """Root runs nobody else's code, not even that of the file's rightful owner."""
    assert judge(tree(plain(uid=STRANGER)), uid=ROOT) == [(True, PLUGIN, f"chown -h root {PLUGIN}")]


def test_an_engine_of_root_refuses_a_strangers_file_on_a_read_only_mount_too() -> None:
    """Read-only here says nothing of where it is mounted from: its owner may change it there."""
    files = tree(plain(uid=STRANGER), read_only=("/etc/plugins",))
    assert judge(files, uid=ROOT) == [(True, PLUGIN, f"chown -h root {PLUGIN}")]


def linked() -> MadeUp:
    """Make up /etc/plugins/worker_x.py -> ../../srv/code/real.py."""
    files = tree(link())
    files.links[PLUGIN] = "../../srv/code/real.py"
    files.entries["/srv"] = directory()
    files.entries["/srv/code"] = directory()
    files.entries["/srv/code/real.py"] = plain()
    return files


@pytest.mark.parametrize(
    ("path", "facts"),
    [
        ("/srv/code/real.py", plain(0o666)),
        ("/srv/code", directory(0o777)),
        ("/etc/plugins", directory(0o777)),
    ],
)
def test_both_ends_of_a_link_are_judged(path: str, facts: os.stat_result) -> None:
    """The directories as reached and the ones that the link leads through."""
    files = linked()
    assert judge(files) == []
    files.entries[path] = facts
    assert [(refuse, where) for refuse, where, _ in judge(files)] == [(True, path)]


def test_a_strangers_link_in_a_sticky_directory_is_refused() -> None:
    """He may turn it elsewhere, however safe the file is that it leads to now."""
    files = linked()
    files.entries["/etc/plugins"] = directory(STICKY)
    files.entries[PLUGIN] = link(STRANGER)
    assert [(refuse, where) for refuse, where, _ in judge(files)] == [(True, PLUGIN)]


def test_links_to_directories_are_followed_to_their_end() -> None:
    """A ConfigMap's file leads through ..data, which leads through a dated directory."""
    files = tree(link(), directory(0o777), read_only=("/etc/plugins",))
    files.links = {PLUGIN: "..data/worker_x.py", "/etc/plugins/..data": "..2026"}
    files.entries["/etc/plugins/..data"] = link()
    files.entries["/etc/plugins/..2026"] = directory()
    files.entries["/etc/plugins/..2026/worker_x.py"] = plain()
    assert judge(files) == []
    files.read_only = ()
    assert [where for _, where, _ in judge(files)] == ["/etc/plugins"]


def test_a_loop_of_links_ends_in_an_error() -> None:
    """As in the kernel."""
    files = tree(link())
    files.links[PLUGIN] = "worker_x.py"
    with pytest.raises(OSError, match="symbolic links"):
        judge(files)


def test_a_link_that_leads_nowhere_is_an_error() -> None:
    """The caller says which plugin it was."""
    files = tree(link())
    files.links[PLUGIN] = "/nowhere"
    with pytest.raises(FileNotFoundError):
        judge(files)


def test_directories_are_looked_at_once() -> None:
    """Ten thousand files in a directory cost one look each, and one for each directory."""
    files = tree()
    files.entries["/"] = directory()
    rules = PermissionRules(files, ENGINE)
    for number in range(100):
        path = f"/etc/plugins/worker_{number}.py"
        files.entries[path] = plain()
        rules.check(path)
    assert len(files.asked) == 100 + 3


def test_a_very_deep_path_is_walked() -> None:
    """No limit but the kernel's."""
    files = MadeUp({"/": directory()})
    path = ""
    for _ in range(2000):
        path += "/d"
        files.entries[path] = directory()
    files.entries[path + "/f"] = plain(0o666)
    assert [where for _, where, _ in judge(files, path + "/f")] == [path + "/f"]


def findings_below(top: Path, path: Path) -> list[Exposure]:
    """Judge a real file; what is above the test's own directory is not the test's business."""
    found = PermissionRules().check(str(path))
    return [item for item in found if item.path.startswith(str(top))]


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    """A safe plugin, two directories below the test's own."""
    file = tmp_path / "a b" / "plugins" / "worker_x.py"
    file.parent.mkdir(parents=True)
    file.write_text("")
    for path, mode in ((file.parent.parent, 0o755), (file.parent, 0o755), (file, 0o644)):
        path.chmod(mode)
    return file


@pytest.mark.parametrize("mode", [0o666, 0o646, 0o664])
@pytest.mark.parametrize("which", ["file", "directory", "directory above"])
def test_the_command_in_the_message_mends_it(
    tmp_path: Path, plugin: Path, which: str, mode: int
) -> None:
    """Run the command from the message, and nothing is wrong any more."""
    target = {"file": plugin, "directory": plugin.parent}.get(which, plugin.parent.parent)
    target.chmod(mode if target is plugin else mode | 0o111)
    [finding] = findings_below(tmp_path, plugin)
    assert finding.refuse == bool(mode & 0o002)
    subprocess.run(shlex.split(finding.repair), check=True)
    assert findings_below(tmp_path, plugin) == []


def test_a_name_with_control_characters_stays_on_one_line(tmp_path: Path) -> None:
    """The command can still be pasted into bash."""
    file = tmp_path / "worker_'\n\\ x.py"
    file.write_text("")
    file.chmod(0o666)
    [finding] = findings_below(tmp_path, file)
    assert finding.text.isprintable()
    subprocess.run(["bash", "-c", finding.repair], check=True)
    assert stat.S_IMODE(file.stat().st_mode) == 0o644


def test_read_only_mounts_are_recognised(tmp_path: Path) -> None:
    """As /proc/self/mounts lists them; the test's own directory is writable."""
    assert not FileFacts().is_read_only(str(tmp_path))
    assert not FileFacts().is_read_only(str(tmp_path / "missing"))
    with open("/proc/self/mounts") as mounts:
        rows = [line.split() for line in mounts]
    read_only = [row[1] for row in rows if "ro" in row[3].split(",") and os.path.isdir(row[1])]
    mounted_once = [path for path in read_only if [row[1] for row in rows].count(path) == 1]
    if not mounted_once:
        pytest.skip("nothing is mounted read-only here")
    assert FileFacts().is_read_only(mounted_once[0])


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting takes root")
def test_a_real_read_only_mount_with_open_modes_is_accepted(tmp_path: Path) -> None:
    """A ConfigMap's directory is 0777, on a file system that is mounted read-only."""
    script = f"""
set -e
mount -t tmpfs -o mode=0777 none {tmp_path}
echo pass > {tmp_path}/worker_x.py
chmod 0666 {tmp_path}/worker_x.py
{sys.executable} -c "$JUDGE" {tmp_path}
mount -o remount,ro {tmp_path}
{sys.executable} -c "$JUDGE" {tmp_path}
"""
    judge_it = (
        "import sys; "
        "from lmcache_plugin_adapter.planner.permissions import PermissionRules as Rules; "
        "print(len([f for f in Rules().check(sys.argv[1] + '/worker_x.py') if f.refuse]))"
    )
    top = os.path.dirname(os.path.dirname(lmcache_plugin_adapter.__file__))
    run = subprocess.run(
        ["unshare", "-m", "sh", "-c", script],
        env=os.environ | {"JUDGE": judge_it, "PYTHONPATH": top},
        capture_output=True,
        check=False,
    )
    if run.returncode and any(word in run.stderr for word in (b"unshare:", b"mount:")):
        pytest.skip(f"no mount here: {run.stderr.decode()}")
    assert run.stdout.split() == [b"2", b"0"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_root_refuses_a_real_file_of_somebody_else(tmp_path: Path, plugin: Path) -> None:
    """And the chown in the message mends it."""
    os.chown(plugin, STRANGER, -1)
    [finding] = findings_below(tmp_path, plugin)
    assert finding.refuse
    subprocess.run(shlex.split(finding.repair), check=True)
    assert findings_below(tmp_path, plugin) == []
