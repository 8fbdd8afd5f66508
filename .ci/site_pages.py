# SPDX-License-Identifier: Apache-2.0
"""A hook of mkdocs: the site has pages of the repository's root, too, and no dead link.

The front page is README.md. A link to a source file becomes a link to the repository's address on
the web, if the variable REPOSITORY_URL has it, or else just the file's name.
"""

from __future__ import annotations

import os
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing/CONTRIBUTING.md",
    "CHANGELOG.md": "contributing/CHANGELOG.md",
    "SECURITY.md": "contributing/SECURITY.md",
    "tests/README.md": "contributing/tests.md",
    "tests/faults/side_by_side.md": "how-it-works/side-by-side.md",
    "benchmarks/figures.md": "how-it-works/figures.md",
}
"""Pages outside docs/, and where the site has them."""

_PLACES = {new: old for old, new in PAGES.items()}
_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages outside docs/."""
    for old, new in PAGES.items():
        files.append(File.generated(config, new, abs_src_path=str(ROOT / old)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Return the page with links that are right on the site; code blocks stay as they are."""
    here = page.file.src_uri
    folder = posixpath.dirname(_PLACES.get(here, f"docs/{here}"))
    parts = re.split(r"(^```.*?^```$)", markdown, flags=re.MULTILINE | re.DOTALL)
    return "".join(
        part if part.startswith("```") else _LINK.sub(lambda f: _link(f, here, folder), part)
        for part in parts
    )


def _link(found: re.Match[str], here: str, folder: str) -> str:
    image, text, target = found.groups()
    path, mark, anchor = target.partition("#")
    if not path or "://" in target or target.startswith("mailto:"):
        return found[0]
    place = posixpath.normpath(posixpath.join(folder, path))
    if place in PAGES or place == "docs/README.md":
        site = PAGES.get(place, "index.md")
    elif place.startswith("docs/"):
        site = place.removeprefix("docs/")
    else:
        repository = os.environ.get("REPOSITORY_URL")
        return f"[{text}]({repository}/{place})" if repository else text
    relative = posixpath.relpath(site, posixpath.dirname(here) or ".")
    return f"{image}[{text}]({relative}{mark}{anchor})"
