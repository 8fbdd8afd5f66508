# SPDX-License-Identifier: Apache-2.0
"""The module of LMCache's server, under the name that ``--server-module`` gives it."""

from lmcache_plugin_adapter.hosts.lmcache_server.module import build_server_modules

__all__ = ["build_server_modules"]
