# SPDX-License-Identifier: Apache-2.0
"""Installed packages as tests use them: laid out as an installer does, without one."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

GROUP = "lmcache.runtime_plugins"


def write_package(
    site: Path,
    entries: Mapping[str, str],
    project: str = "acme-plugins",
    version: str = "1.0",
    modules: Mapping[str, str] | None = None,
    source: Path | None = None,
) -> Path:
    """Lay out a package as installed into ``site``; return its directory of metadata.

    Args:
        site: A directory of ``sys.path``.
        entries: Its plugins, value by name.
        project: Its name.
        version: Its version.
        modules: Source text by relative path.
        source: Where its modules are, if not in ``site``.
    """
    metadata = site / f"{project.replace('-', '_')}-{version}.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project}\nVersion: {version}\n\nVersion: no header\n"
    )
    (metadata / "RECORD").write_text(f"{project},{version},{len(modules or ())}\n")
    lines = [f"{name} = {value}" for name, value in entries.items()]
    text = "\n".join(["[console_scripts]", "all_other = x:y", "", f"[{GROUP}]", *lines, ""])
    (metadata / "entry_points.txt").write_text(text)
    write_modules(source or site, modules or {})
    return metadata


def write_modules(root: Path, modules: Mapping[str, str]) -> None:
    """Write source files with modes that every installer gives, whatever the umask."""
    for name, text in modules.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o644)
        for directory in path.relative_to(root).parents:
            os.chmod(root / directory, 0o755)
