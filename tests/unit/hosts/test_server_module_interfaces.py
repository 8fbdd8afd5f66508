# SPDX-License-Identifier: Apache-2.0
"""The two shapes of the interface of server modules: LMCache 0.5.6's, and the proposed one.

A stand-in loads the module as LMCache would, but strictly: the proposed shape takes
components only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from harness import Engine

SHAPES = """
import dataclasses, importlib, sys, types

def interface(prefix, home):
    module = types.ModuleType(home)
    sys.modules[home] = module
    exec('''
import dataclasses

@dataclasses.dataclass(frozen=True)
class PREFIXSpec:
    module_path: str
    factory_name: str = "build_server_modules"
    config: dict = dataclasses.field(default_factory=dict)

@dataclasses.dataclass(frozen=True)
class PREFIXBuildContext:
    server_context: object
    mp_config: object
    coordinator_config: object
    modules: tuple
    config: dict

@dataclasses.dataclass(frozen=True)
class PREFIXComponents:
    modules: tuple = ()
    grpc_service_registrars: tuple = ()
    zmq_service_registrars: tuple = ()
'''.replace("PREFIX", prefix), vars(module))
    return module

def load(prefix, home, given, built=()):
    shapes = interface(prefix, home)
    spec = getattr(shapes, prefix + "Spec")("lmcache_plugin_adapter.server_module", config=given)
    factory = getattr(importlib.import_module(spec.module_path), spec.factory_name)
    mp_config = types.SimpleNamespace(runtime_plugin_config=None)
    context = getattr(shapes, prefix + "BuildContext")(
        "shared", mp_config, None, tuple(built), spec.config)
    made = factory(context)
    if prefix == "ServerModule":
        assert type(made) is shapes.ServerModuleComponents, made
        assert made.grpc_service_registrars == made.zmq_service_registrars == ()
        (made,) = made.modules
    assert made.context == "shared"
    assert not hasattr(made, "register_grpc_services")
    return made
"""
INTERFACES = {
    "ExtServerModule": "lmcache.v1.multiprocess.ext_server_module",
    "ServerModule": "lmcache.v1.multiprocess.server_module",
}


@pytest.fixture(params=INTERFACES)
def load(request: pytest.FixtureRequest) -> str:
    """Begin a call of the stand-in's loader, for each shape."""
    return f"load({request.param!r}, {INTERFACES[request.param]!r}, "


def test_plugins_run_and_stop(plugin, engine, plugins, load: str) -> None:
    """From the specification to ``close``."""
    plugin("server_x.sh", "trap 'echo goodbye; exit' TERM\necho up; sleep 600 & wait\n")
    one: Engine = engine(launch=False, prelude=SHAPES)
    one.do(f"module = {load}{{'runtime_plugin_locations': [{str(plugins)!r}]}})")
    one.wait_log(r"\[server_x\] up ", 30)
    one.wait_for(
        lambda: one.do("module.report_status()['runtime_plugins']['state']") == "running", 30
    )
    one.do("module.close()")
    one.wait_log(r"\[server_x\] goodbye ", 30)


@pytest.mark.parametrize("given", ["{}", "{'runtime_plugin_locations': 5}", "None"])
def test_nothing_raises(engine, load: str, given: str) -> None:
    """What is wrong is in the status; the server gets its module."""
    one: Engine = engine(launch=False, prelude=SHAPES)
    one.do(f"module = {load}{given})")
    assert one.do("module.report_status()['runtime_plugins']['plugins']") == []
    one.do("module.close()")


def test_a_second_module_is_left_out(plugin, engine, plugins, load: str) -> None:
    """As in LMCache's list of modules that are there already."""
    plugin("server_x.sh", "echo up; exec sleep 600")
    one: Engine = engine(launch=False, prelude=SHAPES)
    given = f"{{'runtime_plugin_locations': [{str(plugins)!r}]}}"
    one.do(f"module = {load}{given}); second = {load}{given}, built=(module,))")
    one.wait_log(r"\] up ", 30)
    assert one.do("second.report_status()") == {}
    one.do("second.close(); module.close()")
    assert one.log().count("Started") == 1
