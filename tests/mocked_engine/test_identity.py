"""Who a process is, from the ``parallel_config`` shapes of vLLM's versions and executors."""

from __future__ import annotations

import enum
import types
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmcache_plugin_adapter.contract.identity import ProcessIdentity, Role
from lmcache_plugin_adapter.hosts.vllm.identity import local_replica_index, read_identity

# The fields that each range of versions added; rank, world size, tensor, pipeline
# and data-parallel sizes and ranks are as old as vLLM's connectors.
ADDED = (
    ("0.9", {}),
    ("0.10", {"decode_context_parallel_size": 1}),
    ("0.12", {"prefill_context_parallel_size": 1, "nnodes": 1, "node_rank": 0}),
    ("0.14", {"data_parallel_index": 0}),
    ("0.32", {"elastic_ep_max_dp_size": 1, "enable_elastic_ep": False}),
)
VERSIONS = tuple(version for version, _ in ADDED)


def config_of(version: str, **fields: Any) -> types.SimpleNamespace:
    """Return a configuration with the fields that ``version`` has, and no others."""
    values: dict[str, Any] = {
        "rank": 0,
        "world_size": 1,
        "tensor_parallel_size": 1,
        "pipeline_parallel_size": 1,
        "data_parallel_size": 1,
        "data_parallel_size_local": 1,
        "data_parallel_rank": 0,
        "data_parallel_rank_local": 0,
        "distributed_executor_backend": "mp",
    }
    for since, added in ADDED:
        values.update(added)
        if since == version:
            break
    values.update({name: value for name, value in fields.items() if name in values})
    return types.SimpleNamespace(**values)


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    """Each range of vLLM versions whose fields differ."""
    return str(request.param)


class VllmRole(enum.Enum):
    """vLLM's KVConnectorRole."""

    SCHEDULER = 0
    WORKER = 1


def test_one_gpu(version: str) -> None:
    """A scheduler and worker 0 of 1, in one process with the uniproc executor."""
    config = config_of(version, distributed_executor_backend="uni")
    assert read_identity(config, VllmRole.SCHEDULER) == ProcessIdentity(Role.SCHEDULER, -1, 1)
    assert read_identity(config, VllmRole.WORKER) == ProcessIdentity(Role.WORKER, 0, 1)


@pytest.mark.parametrize("backend", ["mp", "ray", "uni", None])
@pytest.mark.parametrize("rank", range(4))
def test_tensor_and_pipeline_parallel(version: str, backend: str | None, rank: int) -> None:
    """Every stage counts; ranks go on across nodes."""
    config = config_of(
        version,
        rank=rank,
        world_size=4,
        tensor_parallel_size=2,
        pipeline_parallel_size=2,
        distributed_executor_backend=backend,
        nnodes=2,
        node_rank=rank // 2,
    )
    assert read_identity(config, VllmRole.WORKER) == ProcessIdentity(Role.WORKER, rank, 4)
    assert read_identity(config, VllmRole.SCHEDULER) == ProcessIdentity(Role.SCHEDULER, -1, 4)


def test_prefill_context_parallel_counts_and_decode_does_not() -> None:
    """Decode context parallelism reuses tensor ranks."""
    config = config_of(
        "0.12",
        rank=7,
        tensor_parallel_size=4,
        prefill_context_parallel_size=2,
        decode_context_parallel_size=4,
    )
    assert read_identity(config, "worker") == ProcessIdentity(Role.WORKER, 7, 8)


@pytest.mark.parametrize("replica", [0, 1, 2])
def test_moe_replicas_keep_their_numbers(version: str, replica: int) -> None:
    """``data_parallel_rank`` and the size are true in every version."""
    config = config_of(
        version,
        rank=1,
        tensor_parallel_size=2,
        data_parallel_size=3,
        data_parallel_rank=replica,
        data_parallel_rank_local=replica,
        data_parallel_index=replica,
        elastic_ep_max_dp_size=3,
    )
    assert read_identity(config, VllmRole.WORKER) == ProcessIdentity(
        Role.WORKER, 1, 2, dp_rank=replica, dp_size=3
    )


@pytest.mark.parametrize(
    ("since", "replica", "size"),
    [("0.14", 0, 1), ("0.14", 1, 2), ("0.32", 0, 3), ("0.32", 1, 3)],
)
def test_dense_replicas_are_told_apart(since: str, replica: int, size: int) -> None:
    """They are told 0 of 1; the index is true, the size only where vLLM still has it."""
    config = config_of(
        since,
        data_parallel_rank_local=replica,
        data_parallel_index=replica,
        elastic_ep_max_dp_size=3,
    )
    assert read_identity(config, VllmRole.SCHEDULER) == ProcessIdentity(
        Role.SCHEDULER, -1, 1, dp_rank=replica, dp_size=size
    )


def test_room_for_elastic_growth_is_not_the_number_of_replicas() -> None:
    """With elastic expert parallelism on, the maximum is only a maximum."""
    config = config_of(
        "0.32", data_parallel_size=2, elastic_ep_max_dp_size=8, enable_elastic_ep=True
    )
    assert read_identity(config, "worker").dp_size == 2


@pytest.mark.parametrize("rank", range(8))
def test_external_launcher(version: str, rank: int) -> None:
    """The rank is torchrun's, over two replicas of 2 x 2; the world size counts both."""
    config = config_of(
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
    assert read_identity(config, VllmRole.WORKER) == ProcessIdentity(
        Role.WORKER, rank % 4, 4, dp_rank=rank // 4, dp_size=2
    )
    # Both replicas on one node, then one on each of two.
    assert local_replica_index(config, {"LOCAL_RANK": str(rank)}) == rank // 4
    assert local_replica_index(config, {"LOCAL_RANK": str(rank % 4)}) == 0
    assert local_replica_index(config, {}) == rank // 4


@pytest.mark.parametrize("local", [0, 1])
def test_local_replica(version: str, local: int) -> None:
    """As vLLM numbers them on a node; behind an external load balancer all are 0."""
    config = config_of(version, data_parallel_rank=5, data_parallel_rank_local=local)
    assert local_replica_index(config, {"LOCAL_RANK": "9"}) == local


def test_local_replica_unknown() -> None:
    """An engine in a process of the user's own, which nobody numbered."""
    config = config_of("0.32", data_parallel_rank_local=None, data_parallel_index=1)
    assert local_replica_index(config, {}) == 1


def test_executor_given_as_a_class() -> None:
    """An executor class is accepted by vLLM too."""
    config = config_of("0.32", distributed_executor_backend=object, rank=1, tensor_parallel_size=2)
    assert read_identity(config, "worker").worker_id == 1
    assert local_replica_index(config, {"LOCAL_RANK": "1"}) == 0


@pytest.mark.parametrize("field", ["rank", "tensor_parallel_size", "pipeline_parallel_size"])
@pytest.mark.parametrize("value", [None, "two", object()])
def test_a_missing_or_odd_field_is_named(field: str, value: object) -> None:
    """A guess could run a plugin on two workers."""
    config = config_of("0.32", **{field: value})
    with pytest.raises(ValueError, match=f"parallel_config.{field}"):
        read_identity(config, "worker")


def test_an_empty_replica_is_refused() -> None:
    """A size of 0 divides nothing."""
    with pytest.raises(ValueError, match="size of a replica"):
        read_identity(config_of("0.32", tensor_parallel_size=0), "worker")


@pytest.mark.parametrize("role", ["proxy", None, ""])
def test_an_unknown_role_is_refused(role: object) -> None:
    """With the roles there are."""
    with pytest.raises(ValueError, match="role"):
        read_identity(config_of("0.32"), role)


@given(
    sizes=st.tuples(*[st.integers(1, 6)] * 3),
    data_parallel=st.integers(1, 5),
    external=st.booleans(),
    version=st.sampled_from(VERSIONS[2:]),
)
def test_every_worker_of_a_job_is_someone_else(
    sizes: tuple[int, int, int], data_parallel: int, external: bool, version: str
) -> None:
    """Ids are below the count, and (replica, id) is unique over the whole job."""
    tensor, pipeline, context = sizes
    replica = tensor * pipeline * context
    seen = set()
    for index in range(data_parallel):
        for worker in range(replica):
            config = config_of(
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
