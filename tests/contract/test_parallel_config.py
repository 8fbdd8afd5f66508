# SPDX-License-Identifier: Apache-2.0
"""Identities read from vLLM's real ``ParallelConfig``, as its executors and engines set it."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from lmcache_plugin_adapter.contract.identity import ProcessIdentity, Role
from lmcache_plugin_adapter.hosts.vllm.identity import local_replica_index, read_identity


def parallel_config(**fields: Any) -> Any:
    """Return a configuration that was pickled, as one that reaches a worker."""
    from vllm.config import ParallelConfig

    return pickle.loads(pickle.dumps(ParallelConfig(**fields)))


def dense_replica(index: int, local: int, **fields: Any) -> Any:
    """Return a configuration that vLLM's engine core changed for a replica of a dense model."""
    config = parallel_config(**fields)
    config.data_parallel_rank_local = local
    config.data_parallel_index = index
    if hasattr(config, "reconfigure_for_independent_dp_rank"):
        config.reconfigure_for_independent_dp_rank()
    else:
        config.data_parallel_size = config.data_parallel_size_local = 1
        config.data_parallel_rank = 0
    return pickle.loads(pickle.dumps(config))


def test_one_gpu() -> None:
    """The default configuration is worker 0 of 1."""
    config = parallel_config()
    assert read_identity(config, "worker") == ProcessIdentity(Role.WORKER, 0, 1)
    assert local_replica_index(config, {}) == 0


@pytest.mark.parametrize("backend", ["mp", "ray"])
@pytest.mark.parametrize("rank", range(4))
def test_tensor_and_pipeline_parallel(backend: str, rank: int) -> None:
    """The rank is the one that the worker sets."""
    config = parallel_config(
        tensor_parallel_size=2, pipeline_parallel_size=2, distributed_executor_backend=backend
    )
    config.rank = rank
    assert read_identity(config, "worker") == ProcessIdentity(Role.WORKER, rank, 4)
    assert read_identity(config, "scheduler") == ProcessIdentity(Role.SCHEDULER, -1, 4)


def test_prefill_context_parallel() -> None:
    """It is a factor of the replica's size."""
    config = parallel_config(tensor_parallel_size=2, prefill_context_parallel_size=2)
    config.rank = 3
    assert read_identity(config, "worker") == ProcessIdentity(Role.WORKER, 3, config.world_size)


@pytest.mark.parametrize("index", [0, 1, 2])
def test_moe_replicas(index: int) -> None:
    """Replicas of a MoE model keep their numbers."""
    config = parallel_config(data_parallel_size=3, is_moe_model=True)
    config.data_parallel_rank = config.data_parallel_index = index
    config.data_parallel_rank_local = index
    who = read_identity(config, "worker")
    assert (who.dp_rank, who.dp_size, local_replica_index(config, {})) == (index, 3, index)


@pytest.mark.parametrize("index", [0, 1, 2])
def test_dense_replicas(index: int) -> None:
    """Their identities differ although each has size 1 in vLLM."""
    config = dense_replica(index, index, data_parallel_size=3)
    assert (config.data_parallel_size, config.data_parallel_rank) == (1, 0)
    who = read_identity(config, "scheduler")
    known = 3 if hasattr(config, "elastic_ep_max_dp_size") else index + 1
    assert (who.dp_rank, who.dp_size, local_replica_index(config, {})) == (index, known, index)


def test_external_load_balancer() -> None:
    """Each server is its own first replica."""
    config = dense_replica(2, 0, data_parallel_size=3)
    assert read_identity(config, "worker").dp_rank == 2
    assert local_replica_index(config, {}) == 0


@pytest.mark.parametrize("rank", range(4))
def test_external_launcher(rank: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Torchrun starts two replicas of two workers on two nodes."""
    monkeypatch.setenv("RANK", str(rank))
    config = parallel_config(
        tensor_parallel_size=2,
        data_parallel_size=2,
        distributed_executor_backend="external_launcher",
    )
    config.rank = rank
    assert config.data_parallel_rank_local is None
    assert read_identity(config, "worker") == ProcessIdentity(
        Role.WORKER, rank % 2, 2, dp_rank=rank // 2, dp_size=2
    )
    assert local_replica_index(config, {"LOCAL_RANK": str(rank % 2)}) == 0
    assert local_replica_index(config, {"LOCAL_RANK": str(rank)}) == rank // 2


def test_multi_node() -> None:
    """Ranks continue over the nodes of one replica."""
    config = parallel_config(
        tensor_parallel_size=4, nnodes=2, node_rank=1, distributed_executor_backend="mp"
    )
    config.rank = 3
    assert read_identity(config, "worker") == ProcessIdentity(Role.WORKER, 3, 4)
    assert local_replica_index(config, {}) == 0
