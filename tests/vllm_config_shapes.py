# SPDX-License-Identifier: Apache-2.0
"""The parts of vLLM's configuration that decide about plugins, in the shapes of its versions."""

from __future__ import annotations

import types
from dataclasses import dataclass, field
from typing import Any


@dataclass
class TransferConfig:
    """vLLM's ``KVTransferConfig``."""

    kv_connector: str = "LMCacheConnectorV1"
    kv_connector_module_path: str | None = None
    kv_connector_extra_config: dict[str, Any] = field(default_factory=dict)
    kv_role: str | None = None


def in_multi_connector(*names: str) -> dict[str, Any]:
    """Return the arguments of a ``MultiConnector`` around connectors of these names."""
    children = [{"kv_connector": name, "kv_role": "kv_both"} for name in names]
    return {
        "kv_connector": "MultiConnector",
        "kv_connector_extra_config": {"connectors": children},
    }


DYNAMIC = {
    "kv_connector": "LMCacheConnectorV1Dynamic",
    "kv_connector_module_path": "lmcache.integration.vllm.lmcache_connector_v1",
}
"""LMCache's own connector class, by its module path."""
EXPLICIT = {
    "kv_connector": "LMCacheAdapterConnector",
    "kv_connector_module_path": "lmcache_plugin_adapter.connector",
}
"""The adapter's connector class, by its module path."""

# The fields of ``ParallelConfig`` that each range of versions added. The ones of 0.9 are as old
# as vLLM's connectors.
_FIELDS: tuple[tuple[str, dict[str, Any]], ...] = (
    (
        "0.9",
        {
            "rank": 0,
            "world_size": 1,
            "tensor_parallel_size": 1,
            "pipeline_parallel_size": 1,
            "data_parallel_size": 1,
            "data_parallel_size_local": 1,
            "data_parallel_rank": 0,
            "data_parallel_rank_local": 0,
            "distributed_executor_backend": "mp",
        },
    ),
    ("0.10", {"decode_context_parallel_size": 1}),
    ("0.12", {"prefill_context_parallel_size": 1, "nnodes": 1, "node_rank": 0}),
    ("0.14", {"data_parallel_index": 0}),
    ("0.32", {"elastic_ep_max_dp_size": 1, "enable_elastic_ep": False}),
)
PARALLEL_CONFIGS = tuple(version for version, _ in _FIELDS)
"""The first version of each range whose ``ParallelConfig`` has other fields."""


def parallel_config(version: str = PARALLEL_CONFIGS[-1], **fields: Any) -> types.SimpleNamespace:
    """Return the ``ParallelConfig`` of one GPU, with the fields that ``version`` has and no others.

    Args:
        version: One of ``PARALLEL_CONFIGS``.
        fields: Other values. Those of fields that came after ``version`` are left out.

    Raises:
        TypeError: No version has a field of that name.
    """
    known = {name: since for since, added in _FIELDS for name in added}
    if unknown := fields.keys() - known:
        raise TypeError(f"no such field of ParallelConfig: {unknown}")
    values: dict[str, Any] = {}
    for since, added in _FIELDS:
        values.update(added)
        if since == version:
            break
    values.update({name: value for name, value in fields.items() if name in values})
    return types.SimpleNamespace(**values)


@dataclass
class VllmConfig:
    """vLLM's configuration, as far as connectors read it."""

    kv_transfer_config: TransferConfig = field(default_factory=TransferConfig)
    parallel_config: types.SimpleNamespace = field(default_factory=parallel_config)
