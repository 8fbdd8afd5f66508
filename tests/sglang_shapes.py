# SPDX-License-Identifier: Apache-2.0
"""A tree of SGLang with just what its hook meets, for processes of tests.

The cache takes the arguments that SGLang 0.5.23 gives it; ``tests/contract`` compares them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

CACHE = "sglang/srt/mem_cache/storage/lmcache/lmcache_unified_radix_cache.py"
PLUGINS = "sglang/srt/plugins"

_CACHE = """
import lmcache.v1.config

class UnifiedRadixCache:
    def __init__(self, params):
        self.log = ["created"]

class LMCacheUnifiedRadixCache(UnifiedRadixCache):
    def __init__(self, params, *, model_config, tp_size, tp_rank, lmcache_config_file,
                 forward_stream):
        super().__init__(params)

    def shutdown(self):
        self.log.append("shutdown")
"""
_CONTEXT = """
import types
parallel = types.SimpleNamespace(dp_rank=None, num_dp_ranks=1, attn_dp_size=1)
def get_parallel():
    return parallel
"""
_LMCACHE = """
import json, types
def load_engine_config_with_overrides(config_file_path=None):
    with open(config_file_path) as file:
        values = json.load(file)
    return types.SimpleNamespace(**values, to_json=lambda: json.dumps(values))
"""
# Of our own making; the contract ring takes SGLang's.
_HOOKS = """
import enum, importlib

class HookType(enum.Enum):
    BEFORE = "before"
    AFTER = "after"

class HookRegistry:
    hooks, done = [], set()

    @classmethod
    def register(cls, target, hook, hook_type=HookType.AFTER, *, source=None):
        cls.hooks.append((target, hook, hook_type))

    @classmethod
    def apply_hooks(cls):
        for target, hook, hook_type in cls.hooks:
            if target in cls.done:
                continue
            cls.done.add(target)
            module, owner, name = target.rsplit(".", 2)
            owner = getattr(importlib.import_module(module), owner)
            setattr(owner, name, cls.wrap(getattr(owner, name), hook, hook_type))

    @staticmethod
    def wrap(original, hook, hook_type):
        def wrapper(*args, **kwargs):
            if hook_type is HookType.BEFORE:
                changed = hook(*args, **kwargs)
                args, kwargs = changed if changed is not None else (args, kwargs)
                return original(*args, **kwargs)
            result = original(*args, **kwargs)
            changed = hook(result, *args, **kwargs)
            return result if changed is None else changed
        return wrapper
"""
_LOAD = """
from sglang.srt.plugins.hook_registry import HookRegistry
def load_plugins():
    from lmcache_plugin_adapter.hosts.sglang.hook import register
    register()
    HookRegistry.apply_hooks()
"""

RANK = """
import types
import sglang.srt.runtime_context as context
from sglang.srt.plugins import load_plugins

def rank(path, tp_size=1, tp_rank=0, pp_size=1, pp_rank=0, **parallel):
    vars(context.parallel).update(parallel)
    from sglang.srt.mem_cache.storage.lmcache import lmcache_unified_radix_cache as home
    params = types.SimpleNamespace(pp_size=pp_size, pp_rank=pp_rank)
    return home.LMCacheUnifiedRadixCache(
        params, model_config=None, tp_size=tp_size, tp_rank=tp_rank,
        lmcache_config_file=path, forward_stream=None)
"""
"""Defines ``rank``, which creates the cache as SGLang's registry does."""


def write_sglang(root: Path, *, hooks: bool = True) -> None:
    """Write the tree; without ``hooks``, what SGLang's own plugin modules are to fill."""
    files = {
        CACHE: _CACHE,
        "sglang/srt/runtime_context.py": _CONTEXT,
        "lmcache/v1/config.py": _LMCACHE,
    }
    if hooks:
        files |= {f"{PLUGINS}/hook_registry.py": _HOOKS, f"{PLUGINS}/__init__.py": _LOAD}
    for name, text in files.items():
        path = root / name
        for parent in path.relative_to(root).parents[:-1]:
            (root / parent).mkdir(parents=True, exist_ok=True)
            if not (root / parent / "__init__.py").exists():
                (root / parent / "__init__.py").touch()
        path.write_text(text)
