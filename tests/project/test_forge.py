# SPDX-License-Identifier: Apache-2.0
"""What the project offers on a forge: the workflow, the issue template, the security policy."""

from __future__ import annotations

import re

import yaml
from cli_under_test import ROOT

from lmcache_plugin_adapter.contract.version import __version__


def test_the_workflow_runs_what_ci_runs() -> None:
    """One script, and nothing beside it."""
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    (job,) = workflow["jobs"].values()
    (command,) = [step["run"] for step in job["steps"] if "run" in step]
    assert command == "bash .ci/run"
    assert (ROOT / ".ci" / "run").is_file()


def test_the_issue_template_requires_doctor() -> None:
    """It is the first thing that a maintainer needs."""
    template = yaml.safe_load((ROOT / ".github" / "ISSUE_TEMPLATE" / "bug.yml").read_text())
    (doctor,) = [part for part in template["body"] if part.get("id") == "doctor"]
    assert "lmcache-plugins doctor" in doctor["attributes"]["label"]
    assert doctor["validations"]["required"]


def test_the_changelog_begins_with_this_version_and_its_date() -> None:
    """As the release checklist asks."""
    text = (ROOT / "CHANGELOG.md").read_text()
    heading = re.search(r"^## (.+)$", text, re.MULTILINE)
    assert heading is not None
    assert re.fullmatch(rf"{re.escape(__version__)} - \d{{4}}-\d\d-\d\d", heading[1])
