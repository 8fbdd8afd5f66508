# SPDX-License-Identifier: Apache-2.0
"""A process's identity, read from ``parallel_config`` in each version and executor of vLLM."""

from __future__ import annotations

import pytest
from engine_shapes import KVConnectorRole
from hypothesis import given
from hypothesis import strategies as st
from vllm_config_shapes import PARALLEL_CONFIGS, parallel_config

from lmcache_plugin_adapter.contract.identity import ProcessIdentity, Role
from lmcache_plugin_adapter.hosts.vllm.identity import local_replica_index, read_identity


@pytest.fixture(params=PARALLEL_CONFIGS)
def version(request: pytest.FixtureRequest) -> str:
    """Each range of vLLM versions whose ``ParallelConfig`` has other fields."""
    return str(request.param)


def test_one_gpu(version: str) -> None:
    """The uniproc executor has a scheduler and worker 0 of 1 in one process."""
    config = parallel_config(version, distributed_executor_backend="uni")
    assert read_identity(config, KVConnectorRole.SCHEDULER) == ProcessIdentity(
        Role.SCHEDULER, -1, 1
    )
    assert read_identity(config, KVConnectorRole.WORKER) == ProcessIdentity(Role.WORKER, 0, 1)


@pytest.mark.parametrize("backend", ["mp", "ray", "uni", None])
@pytest.mark.parametrize("rank", range(4))
def test_tensor_and_pipeline_parallel(version: str, backend: str | None, rank: int) -> None:
    """Each pipeline stage counts, and ranks continue across nodes."""
    config = parallel_config(
        version,
        rank=rank,
        world_size=4,
        tensor_parallel_size=2,
        pipeline_parallel_size=2,
        distributed_executor_backend=backend,
        nnodes=2,
        node_rank=rank // 2,
    )
    assert read_identity(config, KVConnectorRole.WORKER) == ProcessIdentity(Role.WORKER, rank, 4)
    assert read_identity(config, KVConnectorRole.SCHEDULER) == ProcessIdentity(
        Role.SCHEDULER, -1, 4
    )


def test_prefill_context_parallel_counts_and_decode_does_not() -> None:
    """Decode context parallelism reuses tensor ranks."""
    config = parallel_config(
        "0.12",
        rank=7,
        tensor_parallel_size=4,
        prefill_context_parallel_size=2,
        decode_context_parallel_size=4,
    )
    assert read_identity(config, "worker") == ProcessIdentity(Role.WORKER, 7, 8)


@pytest.mark.parametrize("replica", [0, 1, 2])
def test_moe_replicas_keep_their_numbers(version: str, replica: int) -> None:
    """For a MoE model, ``data_parallel_rank`` and the size are right in every version."""
    config = parallel_config(
        version,
        rank=1,
        tensor_parallel_size=2,
        data_parallel_size=3,
        data_parallel_rank=replica,
        data_parallel_rank_local=replica,
        data_parallel_index=replica,
        elastic_ep_max_dp_size=3,
    )
    assert read_identity(config, KVConnectorRole.WORKER) == ProcessIdentity(
        Role.WORKER, 1, 2, dp_rank=replica, dp_size=3
    )


@pytest.mark.parametrize(
    ("since", "replica", "size"),
    [("0.14", 0, 1), ("0.14", 1, 2), ("0.32", 0, 3), ("0.32", 1, 3)],
)
def test_dense_replicas_are_told_apart(since: str, replica: int, size: int) -> None:
    """Each has rank 0 of 1 in vLLM; the index is right, the size only where vLLM keeps it."""
    config = parallel_config(
        since,
        data_parallel_rank_local=replica,
        data_parallel_index=replica,
        elastic_ep_max_dp_size=3,
    )
    assert read_identity(config, KVConnectorRole.SCHEDULER) == ProcessIdentity(
        Role.SCHEDULER, -1, 1, dp_rank=replica, dp_size=size
    )


def test_room_for_elastic_growth_is_not_the_number_of_replicas() -> None:
    """With elastic expert parallelism, ``elastic_ep_max_dp_size`` is only a maximum."""
    config = parallel_config(
        "0.32", data_parallel_size=2, elastic_ep_max_dp_size=8, enable_elastic_ep=True
    )
    assert read_identity(config, "worker").dp_size == 2


@pytest.mark.parametrize("rank", range(8))
def test_external_launcher(version: str, rank: int) -> None:
    """The rank is torchrun's over two replicas of 2 x 2, and the world size counts both."""
    config = parallel_config(
        version,
        rank=rank,
        world_size=8,
        tensor_parallel_size=2,
        pipeline_parallel_size=2,
        data_parallel_size=2,
        data_parallel_rank=rank // 4,
        data_parallel_index=rank // 4,
        data_parallel_rank_local=None,
        distributed_executor_backend="external_launcher",
    )
    assert read_identity(config, KVConnectorRole.WORKER) == ProcessIdentity(
        Role.WORKER, rank % 4, 4, dp_rank=rank // 4, dp_size=2
    )
    # Both replicas on one node, then one on each of two.
    assert local_replica_index(config, {"LOCAL_RANK": str(rank)}) == rank // 4
    assert local_replica_index(config, {"LOCAL_RANK": str(rank % 4)}) == 0
    assert local_replica_index(config, {}) == rank // 4


@pytest.mark.parametrize("local", [0, 1])
def test_local_replica(version: str, local: int) -> None:
    """The number that vLLM gives on the node counts, not ``LOCAL_RANK``."""
    config = parallel_config(version, data_parallel_rank=5, data_parallel_rank_local=local)
    assert local_replica_index(config, {"LOCAL_RANK": "9"}) == local


def test_local_replica_unknown() -> None:
    """Without a local number, the index over the job stands for it."""
    config = parallel_config(data_parallel_rank_local=None, data_parallel_index=1)
    assert local_replica_index(config, {}) == 1


def test_executor_given_as_a_class() -> None:
    """An executor class is a valid backend, too."""
    config = parallel_config(distributed_executor_backend=object, rank=1, tensor_parallel_size=2)
    assert read_identity(config, "worker").worker_id == 1
    assert local_replica_index(config, {"LOCAL_RANK": "1"}) == 0


@pytest.mark.parametrize("field", ["rank", "tensor_parallel_size", "pipeline_parallel_size"])
@pytest.mark.parametrize("value", [None, "two", object()])
def test_a_missing_or_odd_field_is_named(field: str, value: object) -> None:
    """The error names the field; a guess could run a plugin on two workers."""
    config = parallel_config(**{field: value})
    with pytest.raises(ValueError, match=f"parallel_config.{field}"):
        read_identity(config, "worker")


def test_an_empty_replica_is_refused() -> None:
    """A size of 0 is an error with its own message."""
    with pytest.raises(ValueError, match="size of a replica"):
        read_identity(parallel_config(tensor_parallel_size=0), "worker")


@pytest.mark.parametrize("role", ["proxy", None, ""])
def test_an_unknown_role_is_refused(role: object) -> None:
    """The error names the role."""
    with pytest.raises(ValueError, match="role"):
        read_identity(parallel_config(), role)


@given(
    sizes=st.tuples(*[st.integers(1, 6)] * 3),
    data_parallel=st.integers(1, 5),
    external=st.booleans(),
    version=st.sampled_from(PARALLEL_CONFIGS[2:]),
)
def test_every_worker_of_a_job_is_someone_else(
    sizes: tuple[int, int, int], data_parallel: int, external: bool, version: str
) -> None:
    """Each id is below the count, and the pair of replica and id is unique in the job."""
    tensor, pipeline, context = sizes
    replica = tensor * pipeline * context
    seen = set()
    for index in range(data_parallel):
        for worker in range(replica):
            config = parallel_config(
                version,
                rank=index * replica + worker if external else worker,
                tensor_parallel_size=tensor,
                pipeline_parallel_size=pipeline,
                prefill_context_parallel_size=context,
                data_parallel_size=data_parallel,
                data_parallel_rank=index,
                data_parallel_index=index,
                distributed_executor_backend="external_launcher" if external else "mp",
            )
            who = read_identity(config, "worker")
            assert 0 <= who.worker_id < who.worker_count == replica
            assert 0 <= who.dp_rank < who.dp_size
            seen.add((who.dp_rank, who.worker_id))
    assert len(seen) == data_parallel * replica
