# SPDX-License-Identifier: Apache-2.0
"""A connector class to name in vLLM's configuration, if ``VLLM_PLUGINS`` excludes this package.

For example::

    --kv-transfer-config '{"kv_connector": "LMCacheAdapterConnector",
      "kv_connector_module_path": "lmcache_plugin_adapter.connector", "kv_role": "kv_both"}'

Imports vLLM; nothing else of this package imports this module.
"""

from __future__ import annotations

import inspect
from typing import Any

from vllm.distributed.kv_transfer.kv_connector.v1.lmcache_connector import (  # type: ignore[import-not-found, unused-ignore]
    LMCacheConnectorV1,
)

from .connector_takeover import begin_takeover


class LMCacheAdapterConnector(LMCacheConnectorV1):  # type: ignore[misc, unused-ignore]
    """vLLM's ``LMCacheConnectorV1`` that runs LMCache's runtime plugins under supervision.

    If the vLLM plugin is active too, plugins start only once.
    """

    def __init__(
        self, vllm_config: Any, role: Any, kv_cache_config: Any = None, **kwargs: Any
    ) -> None:
        """Create vLLM's connector, then start this process's plugins.

        Args:
            vllm_config: vLLM's configuration.
            role: Scheduler or worker.
            kv_cache_config: An argument of vLLM 0.12 and later.
            kwargs: Arguments of later versions, passed on.
        """
        accepted = inspect.signature(LMCacheConnectorV1.__init__).parameters
        if "kv_cache_config" in accepted:  # vLLM 0.10 and 0.11 have none
            kwargs["kv_cache_config"] = kv_cache_config
        takeover = begin_takeover(vllm_config, role)
        with takeover:
            super().__init__(vllm_config=vllm_config, role=role, **kwargs)
        takeover.finish(self)
