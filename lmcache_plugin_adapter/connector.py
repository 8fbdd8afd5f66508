# SPDX-License-Identifier: Apache-2.0
"""The connector class, under the name that vLLM's configuration gives its module."""

from lmcache_plugin_adapter.hosts.vllm.connector import LMCacheAdapterConnector

__all__ = ["LMCacheAdapterConnector"]
