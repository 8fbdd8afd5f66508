# SPDX-License-Identifier: Apache-2.0
"""Every mistake is one clear line in the engine's log, and the other plugins run."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess

import pytest

GOOD = "echo up; exec sleep 60"


@pytest.fixture
def lines(plugin, engine):
    """Start an engine beside whose mistakes a good plugin must run; return what is said."""

    def run(settings=None, **options) -> list[tuple[str, str]]:
        plugin("all_good.sh", GOOD)
        one = engine(settings, **options)
        one.wait_log(r"\[all_good\] up ")
        return [
            (level, f"[{name}] {text}") for level, name, text in one.records() if name != "all_good"
        ]

    return run


def only(found: list[tuple[str, str]], level: str, *words: str) -> None:
    """Require exactly one line that has these words, of this level."""
    hits = [line for line in found if all(word in line[1] for word in words)]
    assert [hit[0] for hit in hits] == [level], found


@pytest.mark.parametrize("kind", ["missing", "empty", "fifo", "socket", "broken link"])
def test_locations(lines, tmp_path, kind) -> None:
    """A location that gives no plugin is named in one warning."""
    bad = tmp_path / "bad"
    if kind == "empty":
        bad.mkdir()
    elif kind == "fifo":
        os.mkfifo(bad)
    elif kind == "socket":
        os.mknod(bad, stat.S_IFSOCK | 0o600)
    elif kind == "broken link":
        bad.symlink_to(tmp_path / "nowhere")
    found = lines(locations=[str(bad), str(tmp_path / "plugins")])
    only(found, "WARNING", str(bad))
    assert len(found) == 1


@pytest.mark.parametrize(
    ("name", "content", "mode", "level", "words"),
    [
        ("all_empty.sh", b"", 0o755, "ERROR", ("[all_empty] ", "empty")),
        ("all_x.rb2", b"no interpreter", 0o644, "ERROR", ("[all_x] ", "#!")),
        ("all_none.xyz", b"#!/none/such\n", 0o755, "ERROR", ("/none/such",)),
        ("all_open.sh", GOOD.encode(), 0o777, "ERROR", ("[all_open] ", "chmod ")),
        ("woker_x.sh", GOOD.encode(), 0o755, "WARNING", ("woker_x.sh", "worker_x.sh")),
        ("heartbeat.py", b"pass", 0o644, "WARNING", ("heartbeat.py", "all_heartbeat.py")),
        ("all_data", b"\x7fELF nonsense", 0o755, "ERROR", ("[all_data] ", "exec format error")),
    ],
)
def test_files(lines, plugin, plugins, engine, name, content, mode, level, words) -> None:
    """A file that cannot run is one line with its mend."""
    plugin(name, content, mode)
    plugin("all_good.sh", GOOD)
    one = engine()
    one.wait_log(r"\[all_good\] up ")
    one.wait_log(rf"LMCache {level}: .*{words[0].strip().replace('[', '.').replace(']', '.')}")
    found = [
        (said, f"[{plugin_name}] {text}")
        for said, plugin_name, text in one.records()
        if plugin_name != "all_good" and "Started" not in text and "Exited" not in text
    ]
    only(found, level, *words)


def test_missing_interpreter_falls_back_with_a_warning(plugin, engine) -> None:
    """A shebang that leads nowhere: one warning, then the file's ending decides."""
    plugin("all_x.sh", "#!/none/such/bash\necho up; exec sleep 60")
    one = engine()
    one.wait_log(r"\[all_x\] up ")
    (warning,) = [text for level, _, text in one.records() if level == "WARNING"]
    assert "/none/such/bash" in warning


def test_names_in_any_bytes(plugins, engine) -> None:
    """A name that is no text, or holds a newline, runs and is shown escaped on one line."""
    for name in (b"all_\xff\xfe.sh", b"all_new\nline.sh", "all_grün ✓.sh".encode()):
        path = os.fsencode(plugins) + b"/" + name
        with open(path, "wb") as file:
            file.write(b'echo "I am $LMCACHE_RUNTIME_PLUGIN_NAME"; exec sleep 60')
    one = engine()
    one.wait_for(lambda: one.log().count("I am ") == 3)
    names = {name for _, name, _ in one.records()}
    assert names == {r"all_\xff\xfe", r"all_new\x0aline", "all_grün ✓"}


def test_unknown_and_wrong_settings(lines) -> None:
    """Each names its full key; the defaults and the rest stay in force."""
    found = lines({"stop_grce": 3, "restart": "sometimes", "backoff": {"max": -1}})
    only(found, "WARNING", "extra_config.runtime_plugins.stop_grce", "stop_grace")
    only(found, "ERROR", "extra_config.runtime_plugins.restart", "sometimes", "on-failure")
    only(found, "ERROR", "extra_config.runtime_plugins.backoff.max", "-1")


def test_secrets_are_not_printed(plugin, engine) -> None:
    """Arguments and variables of a plugin, which may be secret, do not reach the log."""
    plugin("all_x.sh", "echo up; exec sleep 60")
    one = engine(
        {
            "plugins": {
                "all_x": {"args": ["hunter2"], "env": {"TOKEN": "hunter2", "BAD": ["hunter2"]}}
            }
        }
    )
    one.wait_log(r"\[all_x\] up ")
    assert "BAD" in one.log()
    assert "hunter2" not in one.log()


def test_same_file_through_links_and_overlapping_locations(
    plugin, plugins, engine, tmp_path
) -> None:
    """Links, overlapping locations and a ConfigMap's ``..data``: each file runs once."""
    real = plugin("..2026_11_22/all_x.sh", "echo up; exec sleep 60")
    (plugins / "..data").symlink_to("..2026_11_22")
    (plugins / "all_x.sh").symlink_to("..data/all_x.sh")
    (tmp_path / "again").symlink_to(plugins)
    (plugins / "all_same.sh").symlink_to(real)
    one = engine(locations=[str(plugins), str(tmp_path / "again"), str(plugins / "all_x.sh")])
    one.wait_log(r"\] up ")
    plugin("all_zz.sh", "echo last")
    assert one.log().count("Started") == 1


LANGUAGES = {
    "all_python.py": "#!/usr/bin/env python3\nprint('hello', flush=True)\n",
    "all_bash.sh": "#!/usr/bin/env -S bash -e\necho ${BASH_VERSION:+hello}\n",
    "all_posix": "#!/bin/sh\necho hello\n",
    "all_perl.pl": '#!/usr/bin/perl -w\nprint "hello\\n";\n',
    "all_awk.awk": '#!/usr/bin/awk -f\nBEGIN { print "hello" }\n',
}


@pytest.mark.parametrize("name", LANGUAGES)
def test_languages(name, plugin, engine) -> None:
    """Python, Bash, POSIX sh, Perl and awk, by their shebangs."""
    plugin(name, LANGUAGES[name])
    one = engine({"restart": "never"})
    one.wait_log(rf"\[{name.split('.')[0]}\] hello ")
    one.wait_log(r"Exited with code 0")


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_compiled_program(plugins, engine, tmp_path) -> None:
    """A program without ending and shebang is executed as it is."""
    (tmp_path / "x.c").write_text('#include <stdio.h>\nint main(void) { puts("hello"); }\n')
    subprocess.run(["cc", "-o", plugins / "worker_0_native", tmp_path / "x.c"], check=True)
    engine({"restart": "never"}).wait_log(r"\[worker_0_native\] hello ")
