# SPDX-License-Identifier: Apache-2.0
"""What runs a file: decided on real files, and tried by running them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lmcache_plugin_adapter.planner.interpreter import Interpreters, PluginCommand, find_program

PATH = os.environ["PATH"]
BASH = shutil.which("bash") or "bash"


@pytest.fixture
def make(tmp_path: Path):
    """Write a plugin and return its path."""

    def write(name: str, content: str | bytes = "", mode: int = 0o644) -> str:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        path.chmod(mode)
        return str(path)

    return write


def decide(
    path: str, *arguments: str, search: str = PATH, python: str = sys.executable
) -> PluginCommand:
    """Decide with this test's Python as the engine's."""
    return Interpreters(python, search).command(path, arguments)


def words(command: PluginCommand) -> list[str]:
    """Return the command, which must be one."""
    assert command.error is None
    return [os.fsdecode(word) for word in command.argv]


def program(name: str) -> str:
    """Return where a program is, or skip the test."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"needs {name}")
    return found


LANGUAGES = {
    "python by extension": ("worker_a.py", "import sys\nprint(*sys.argv[1:])\n", 0o644),
    "python by shebang": (
        "worker_a",
        "#!/usr/bin/env python3\nimport sys\nprint(*sys.argv[1:])\n",
        0o644,
    ),
    "bash by extension": ("worker_a.sh", "a=(x)\necho $@\n", 0o644),
    "bash by env -S": ("worker_a.x", "#!/usr/bin/env -S bash -e -u\necho $@\n", 0o644),
    "posix sh": ("worker_a.sh", "#!/bin/sh -e\necho $@\n", 0o644),
    "perl": ("worker_a.pl", '#!/usr/bin/env -S perl -w\nprint "@ARGV\\n";\n', 0o644),
    "awk": ("worker_a.awk", "#!/usr/bin/awk -f\nBEGIN { print ARGV[1], ARGV[2] }\n", 0o644),
    "crlf": ("worker_a.py", "#!/usr/bin/env python3\r\nimport sys\r\nprint(*sys.argv[1:])\r\n", 0),
    "byte order mark": (
        "worker_a.py",
        b"\xef\xbb\xbf#!/usr/bin/env python3\nimport sys\nprint(*sys.argv[1:])\n",
        0,
    ),
    "env sets a variable": (
        "worker_a.sh",
        '#!/usr/bin/env -S TWO=two bash\necho "$1 $TWO"\n',
        0o644,
    ),
}


@pytest.mark.parametrize(("name", "content", "mode"), LANGUAGES.values(), ids=LANGUAGES)
def test_any_language_runs(make, name: str, content: str | bytes, mode: int) -> None:
    """Run the command that was decided: the plugin sees its arguments, without any exec bit."""
    for needed in ("perl", "awk"):
        if needed in str(content):
            program(needed)
    command = decide(make(name, content, mode or 0o644), "one", "two")
    assert command.error is None
    assert command.warnings == ()
    output = subprocess.run(command.argv, stdout=subprocess.PIPE, check=True).stdout
    assert output.split() == [b"one", b"two"]


def test_a_compiled_program_runs(make) -> None:
    """With the exec bit it is executed, whatever its extension."""
    compiled = Path(program("echo")).read_bytes()
    for name in ("worker_echo", "worker_echo.bin", "worker_echo.py"):
        path = make(name, compiled, 0o755)
        command = decide(path, "hi")
        assert words(command) == [path, "hi"]
        assert subprocess.run(command.argv, stdout=subprocess.PIPE, check=True).stdout == b"hi\n"


def test_a_compiled_program_without_exec_bit_says_how_to_set_it(make) -> None:
    """It cannot be run in any other way."""
    command = decide(make("worker_x.py", b"\x7fELF\x02\x01"))
    assert command.argv == ()
    assert "chmod +x" in (command.error or "")


def test_a_shebang_goes_before_the_extension(make) -> None:
    """``.py`` with a bash shebang is a bash script."""
    path = make("worker_x.py", "#!/usr/bin/env bash\n")
    assert words(decide(path, "a b", "")) == [BASH, path, "a b", ""]


@pytest.mark.parametrize("name", ["worker_x.py", "worker_x.PY"])
def test_python_without_shebang_is_the_engines(make, name: str) -> None:
    """So that a plugin can import what the engine can."""
    path = make(name, "pass\n")
    assert words(decide(path)) == [sys.executable, path]


def test_env_finds_the_first_on_the_given_path(make, tmp_path: Path) -> None:
    """The caller puts the engine's Python first on it."""
    fake = make("python3", "#!/bin/sh\n", 0o755)
    path = make("worker_x.py", "#!/usr/bin/env python3\n")
    assert words(decide(path, search=f"{tmp_path}:{PATH}")) == [fake, path]


def test_arguments_of_the_shebang_are_kept_as_one(make) -> None:
    """As the kernel does; ``env -S`` splits them."""
    path = make("worker_x", "#!/bin/sh -e -u\n")
    assert words(decide(path)) == ["/bin/sh", "-e -u", path]
    path = make("worker_y", "#!/usr/bin/env -S sh -e -u\n")
    assert words(decide(path)) == [program("sh"), "-e", "-u", path]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("#!/nowhere/python9", "'/nowhere/python9' does not exist"),
        ("#!/usr/bin/env python9", "'python9' is not on PATH"),
        ("#!/usr/bin/env python3 -u", "arguments need 'env -S'"),
        ("#!/usr/bin/env", "incomplete: 'env' is given no program"),
        ("#!/usr/bin/env -S A=b", "incomplete"),
        ("#!/usr/bin/env -S A=b python9", "'python9' is not on PATH"),
        ("#!/usr", "'/usr' is a directory"),
        ("#!/etc/passwd", "'/etc/passwd' may not be executed"),
        ("#!/etc/passwd/x", "'/etc/passwd/x' cannot be used: not a directory"),
        ("#!python9", "'python9' is not on PATH"),
        ("#!/" + "x" * 300, "longer than the kernel's 255 bytes"),
    ],
)
def test_an_unusable_interpreter_is_one_warning_and_the_fallback(
    make, line: str, reason: str
) -> None:
    """The extension says what runs it instead; without one it is an error that says the same."""
    for name, instead in (("worker_x.py", sys.executable), ("worker_x.sh", BASH)):
        path = make(name, line + "\npass\n")
        command = decide(path)
        assert words(command) == [instead, path]
        [warning] = command.warnings
        assert reason in warning
        assert f"runs with '{instead}' instead" in warning
    command = decide(make("worker_x.pl", line + "\npass\n", 0o755))
    assert command.argv == ()
    assert reason in (command.error or "")


@pytest.mark.parametrize(
    ("name", "content", "mode", "error"),
    [
        ("worker_x.py", "", 0o644, "the file is empty"),
        ("worker_x.pl", "print 1;\n", 0o644, "write its interpreter into the first line"),
        ("worker_x", "hello\n", 0o644, "write its interpreter into the first line"),
    ],
)
def test_what_cannot_run_says_what_to_add(
    make, name: str, content: str, mode: int, error: str
) -> None:
    """One clear line each."""
    command = decide(make(name, content, mode))
    assert command.argv == ()
    assert error in (command.error or "")
    assert "\n" not in (command.error or "")


def test_a_script_that_is_only_executable_is_run_with_a_hint(make) -> None:
    """The kernel may know the format (binfmt_misc), but probably does not."""
    path = make("worker_x", "hello\n", 0o755)
    command = decide(path)
    assert words(command) == [path]
    assert "#!" in command.hints[0].text


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_plugin_says_how_to_mend_it(make) -> None:
    """The engine's user must be able to read it."""
    assert "chmod a+r" in (decide(make("worker_x.py", "pass\n", 0o000)).error or "")


def test_a_plugin_that_went_away_or_turned_into_a_fifo_is_one_line(tmp_path: Path) -> None:
    """Nobody waits for a writer."""
    assert "no such file" in (decide(str(tmp_path / "worker_x.py")).error or "")
    os.mkfifo(tmp_path / "worker_y.py")
    assert "regular file" in (decide(str(tmp_path / "worker_y.py")).error or "")


def test_missing_fallbacks_are_errors(make) -> None:
    """A system without bash, or without the engine's Python."""
    nothing = decide(make("worker_x.sh", "true\n"), search="/nowhere")
    assert "no 'bash' on PATH" in (nothing.error or "")
    nothing = decide(make("worker_x.py", "pass\n"), search="/nowhere", python="/nowhere/python")
    assert "'/nowhere/python' does not exist" in (nothing.error or "")


def test_another_python_by_its_path_gets_a_hint(make, tmp_path: Path) -> None:
    """Only where it really is another: a link beside the engine's own is the same."""
    other = tmp_path / "bin" / "python3.9"
    other.parent.mkdir()
    other.write_text("#!/bin/sh\n")
    other.chmod(0o755)
    [hint] = decide(make("worker_x.py", f"#!{other}\n")).hints
    assert hint.level == "warning"
    assert sys.executable in hint.text
    assert decide(make("worker_y.py", f"#!{sys.executable}\n")).hints == ()
    same = Path(sys.executable).with_name("python3")
    if same.exists() and same.samefile(sys.executable):
        assert decide(make("worker_z.py", f"#!{same}\n")).hints == ()


def test_a_virtual_environment_is_another_python(make, tmp_path: Path) -> None:
    """Its program may be a link to the very same file."""
    venv = tmp_path / "venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "pyvenv.cfg").write_text("")
    (venv / "bin" / "python3").symlink_to(os.path.realpath(sys.executable))
    [hint] = decide(make("worker_x.py", f"#!{venv}/bin/python3\n")).hints
    assert "may not import what the engine can" in hint.text


def test_an_interpreter_without_a_path_is_looked_up(make) -> None:
    """LMCache's launcher does so; the kernel does not, hence the hint."""
    path = make("worker_x.sh", "#!bash\n")
    command = decide(path)
    assert words(command) == [BASH, path]
    assert "#!/usr/bin/env bash" in command.hints[0].text


def test_windows_line_ends_in_a_shell_script_get_a_hint(make) -> None:
    """Its shebang is tolerated, but bash fails at the first line; Python does not."""
    path = make("worker_x.sh", "#!/bin/bash\r\ncd /\r\n")
    [hint] = decide(path).hints
    assert "CRLF" in hint.text
    subprocess.run(hint.text.rpartition(": ")[2], shell=True, check=True)
    assert Path(path).read_bytes() == b"#!/bin/bash\ncd /\n"
    assert decide(path).hints == ()
    assert decide(make("worker_x.py", "import os\r\n")).hints == ()


def test_names_and_arguments_of_any_bytes_arrive(tmp_path: Path) -> None:
    """A name need not be UTF-8, nor stay on one line."""
    raw = os.fsencode(tmp_path) + b"/worker_\xff\n'x.sh"
    with open(raw, "wb") as file:
        file.write(b'printf "%s|%s" "$0" "$1"\n')
    command = decide(os.fsdecode(raw), "\udcfe\n")
    output = subprocess.run(command.argv, stdout=subprocess.PIPE, check=True).stdout
    assert output == raw + b"|\xfe\n"


def test_an_argument_with_nul_is_an_error(make) -> None:
    """The kernel cannot pass it."""
    assert "NUL" in (decide(make("worker_x.sh", "true\n"), "a\0b").error or "")


def test_a_program_is_found_as_a_shell_finds_it(make, tmp_path: Path, monkeypatch) -> None:
    """The first executable regular file on the path; empty means the working directory."""
    make("tool", "x", 0o644)
    (tmp_path / "sub" / "tool").mkdir(parents=True)
    assert find_program(b"tool", os.fsencode(f"{tmp_path}:{tmp_path}/sub")) is None
    os.chmod(tmp_path / "tool", 0o755)
    tool = os.fsencode(tmp_path / "tool")
    assert find_program(b"tool", os.fsencode(f"/nowhere:{tmp_path}/sub:{tmp_path}")) == tool
    monkeypatch.chdir(tmp_path)
    assert find_program(b"tool", b"") == tool
    assert find_program(b"./tool", b"/nowhere") == os.fsencode(tmp_path) + b"/./tool"
    assert find_program(b"", b"/usr/bin") is None


@settings(
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.binary(max_size=300), st.sampled_from([".py", ".sh", ".pl", ""]), st.booleans())
def test_any_content_gets_a_command_or_an_error(
    tmp_path: Path, content: bytes, extension: str, shebang: bool
) -> None:
    """Never an exception, and every line said is one line."""
    path = tmp_path / f"worker_x{extension}"
    path.write_bytes(b"#!" + content if shebang else content)
    command = decide(str(path))
    assert (command.error is None) == bool(command.argv)
    said = [*command.warnings, command.error or "", *(hint.text for hint in command.hints)]
    assert all(text.isprintable() for text in said)
