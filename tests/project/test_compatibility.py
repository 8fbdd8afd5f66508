# SPDX-License-Identifier: Apache-2.0
"""The page of versions names what the rings run, and what the package declares."""

from __future__ import annotations

import re

import pytest
from cli_under_test import ROOT

from lmcache_plugin_adapter.hosts import upstream_names

PAGE = (ROOT / "docs" / "reference" / "compatibility.md").read_text()
RING = (ROOT / "tests" / "real_engine" / "ring").read_text()
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.splitlines()
    if line.startswith("| ") and not line.startswith("| host")
]


def of_the_ring(name: str) -> set[str]:
    """Return the versions of a variable in the ring's script."""
    (value,) = re.findall(rf"^{name}=\(?([\d. ]+)\)?(?: #.*)?$", RING, re.MULTILINE)
    return set(value.split())


@pytest.mark.parametrize(
    ("host", "names"),
    [
        ("vLLM", ["vllm", "other_vllm", "python_of_vllm", "lmcache", "other_lmcache"]),
        ("LMCache's server", ["lmcache", "vllm"]),
        ("SGLang", ["sglang"]),
        ("lmcache-frontend", ["frontend"]),
    ],
)
def test_versions_of_the_rings(host: str, names: list[str]) -> None:
    """Each version that the script installs has a row, and no row names another one."""
    rows = [row for row in ROWS if row[0] == host and row[2] in ("contract", "real_engine")]
    found = set(re.findall(r"\d+\.\d+\.\d+", " ".join(cell for row in rows for cell in row)))
    assert found == set().union(*map(of_the_ring, names))


def test_rings_exist() -> None:
    """Each is a folder of tests."""
    assert all((ROOT / "tests" / row[2]).is_dir() for row in ROWS)


def test_declared_versions() -> None:
    """Of vLLM, LMCache and Python."""
    (first, last), (oldest, newest) = upstream_names.SUPPORTED.values()
    declared = f"vLLM {first} to {last.removesuffix('.0')}, LMCache {oldest} to {newest}"
    assert declared in PAGE
    assert upstream_names.SGLANG_TRIED in of_the_ring("sglang")
    project = (ROOT / "pyproject.toml").read_text()
    minors = [int(minor) for minor in re.findall(r'Python :: 3\.(\d+)"', project)]
    assert f"Python 3.{minors[0]} to 3.{minors[-1]}" in PAGE
    assert ", ".join(f"3.{minor}" for minor in minors[:-1]) in PAGE
