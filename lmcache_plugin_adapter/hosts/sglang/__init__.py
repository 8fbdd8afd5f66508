# SPDX-License-Identifier: Apache-2.0
"""SGLang as a host: plugins beside each rank that uses LMCache.

Runs in SGLang's processes, by its entry-point group ``sglang.srt.plugins``.
Imports the engine's side; SGLang and LMCache only once SGLang has created LMCache's cache.
"""

LOGGER = "sglang.lmcache_plugin_adapter"
PLUGIN_LOGGER = "sglang.lmcache_plugins"
