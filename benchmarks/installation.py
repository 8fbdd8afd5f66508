# SPDX-License-Identifier: Apache-2.0
"""An environment of its own for the peers, made on the first run."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HOME = ROOT / ".venv-bench"
REQUIREMENTS = Path(__file__).with_name("requirements.txt")


def enter(program: str) -> None:
    """Go on in the environment: make it if need be, and execute ``program`` with its Python.

    Args:
        program: What is running, and runs again inside.
    """
    if Path(sys.prefix) == HOME:
        return
    python = HOME / "bin" / "python"
    wanted = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()
    done = HOME / "installed"
    if not python.exists() or not done.exists() or done.read_text() != wanted:
        print(f"Installing the peers into {HOME}", file=sys.stderr)
        venv.create(HOME, with_pip=True, clear=True)
        command = [str(python), "-m", "pip", "install", "--quiet", "--no-deps"]
        command += ["--disable-pip-version-check", "-r", str(REQUIREMENTS)]
        subprocess.run(command, check=True)
        done.write_text(wanted)
    os.execv(python, [str(python), program, *sys.argv[1:]])
