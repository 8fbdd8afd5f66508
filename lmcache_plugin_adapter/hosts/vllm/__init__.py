# SPDX-License-Identifier: Apache-2.0
"""vLLM as a host: hook, takeover from LMCache's launcher, identity, connector class.

Runs in every process of vLLM.
Imports the engine's side; vLLM and LMCache only once an LMCache connector is created.
"""

from __future__ import annotations

import os

LOGGER = "vllm.lmcache_plugin_adapter"
"""Below vLLM's logger, so that vLLM's handlers print the records."""

PLUGIN_LOGGER = "vllm.lmcache_plugins"
"""The logger of plugins' records (``log: logging``): vLLM's logging configuration applies."""

LAUNCHERS = (
    ("lmcache.v1.plugin.runtime_plugin_launcher", "RuntimePluginLauncher"),  # from 0.3.11
    ("lmcache.v1.plugin.plugin_launcher", "PluginLauncher"),  # 0.3.4 to 0.3.10
)
"""Module and class of LMCache's own launcher, by version."""

CHOOSING_FILE = os.path.join("v1", "plugin", "launcher_factory.py")
"""The file, below LMCache's directory, that lets an installed package provide the launcher.

No LMCache release has it: docs/contributing/upstream has the patch. With it, this package patches
nothing.
"""


def lmcache_chooses() -> bool:
    """Return whether the installed LMCache creates an installed launcher; imports nothing of it."""
    import importlib.util

    spec = importlib.util.find_spec("lmcache")
    places = spec.submodule_search_locations if spec is not None else None
    return any(os.path.isfile(os.path.join(place, CHOOSING_FILE)) for place in places or ())
