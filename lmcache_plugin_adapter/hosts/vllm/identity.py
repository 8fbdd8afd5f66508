# SPDX-License-Identifier: Apache-2.0
"""Read the identity of a vLLM process from its ``parallel_config`` (vLLM 0.9 to 0.33).

The meaning of vLLM's fields depends on the executor and the version:

* ``rank`` is the worker's rank in its replica; under ``external_launcher``, its rank in the whole
  job. The scheduler's is meaningless.
* ``world_size`` counts data parallelism under ``external_launcher`` only, so a
  replica's size is computed from its factors.
* From 0.14 on, replicas of a dense model have ``data_parallel_size`` 1 and ``data_parallel_rank``
  0; ``data_parallel_index`` stays correct.
* ``data_parallel_rank_local`` is None under ``external_launcher``.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from lmcache_plugin_adapter.contract.identity import ProcessIdentity, Role

if TYPE_CHECKING:
    from collections.abc import Mapping

EXTERNAL_LAUNCHER = "external_launcher"


def read_identity(parallel_config: object, role: object) -> ProcessIdentity:
    """Return the identity of this process for its plugins.

    Args:
        parallel_config: vLLM's ``ParallelConfig`` when a connector is created; before that, it
            does not have the rank.
        role: vLLM's ``KVConnectorRole``, or its name.

    Raises:
        ValueError: The role is unknown, or a field that every vLLM version
            has is missing or not a number.
    """
    which = Role.read(role)
    if which is None:
        raise ValueError(f"cannot determine the role of this process: vLLM passes {role!r}")
    replica = replica_size(parallel_config)
    worker_id = -1 if which is Role.SCHEDULER else _number(parallel_config, "rank") % replica
    dp_rank = replica_index(parallel_config)
    return ProcessIdentity(which, worker_id, replica, dp_rank, _replicas(parallel_config, dp_rank))


def replica_size(parallel_config: object) -> int:
    """Return the number of workers of one data-parallel replica.

    Raises:
        ValueError: A field that every vLLM version has is missing.
    """
    size = (
        _number(parallel_config, "tensor_parallel_size")
        * _number(parallel_config, "pipeline_parallel_size")
        * _number(parallel_config, "prefill_context_parallel_size", missing=1)  # from 0.12
    )
    if size < 1:
        raise ValueError(f"cannot determine the size of a replica: vLLM's factors make {size}")
    return size


def replica_index(parallel_config: object) -> int:
    """Return the number of this replica among all of the job, from 0."""
    if getattr(parallel_config, "data_parallel_index", None) is not None:  # from 0.14
        return _number(parallel_config, "data_parallel_index")
    return _number(parallel_config, "data_parallel_rank", missing=0)


def local_replica_index(parallel_config: object, environ: Mapping[str, str] | None = None) -> int:
    """Return the number of this replica on its node, from 0.

    As in LMCache, each server behind an external load balancer has the number 0, also if several
    share a node.

    Args:
        parallel_config: vLLM's ``ParallelConfig``.
        environ: The environment that torchrun sets; None for this process's own.

    Raises:
        ValueError: A field is not a number.
    """
    if getattr(parallel_config, "data_parallel_rank_local", None) is not None:
        return _number(parallel_config, "data_parallel_rank_local")
    local_rank = (os.environ if environ is None else environ).get("LOCAL_RANK", "")
    if _is_external(parallel_config) and local_rank.isdecimal():
        return int(local_rank) // replica_size(parallel_config)
    return replica_index(parallel_config)


def _replicas(parallel_config: object, dp_rank: int) -> int:
    """Return the number of replicas of the job.

    A dense model's replica has 1. From about 0.30 on, ``elastic_ep_max_dp_size`` has the correct
    number. Before, the number is only known to be more than ``dp_rank``.
    """
    known = [_number(parallel_config, "data_parallel_size", missing=1), dp_rank + 1]
    if not getattr(parallel_config, "enable_elastic_ep", False):
        known.append(_number(parallel_config, "elastic_ep_max_dp_size", missing=1))
    return max(known)


def _is_external(parallel_config: object) -> bool:
    backend = getattr(parallel_config, "distributed_executor_backend", None)
    return str(getattr(backend, "value", backend)) == EXTERNAL_LAUNCHER


def _number(parallel_config: object, field: str, missing: int | None = None) -> int:
    """Return a whole number from a field; ``missing`` where it is absent or None."""
    value: Any = getattr(parallel_config, field, None)
    if value is None and missing is not None:
        return missing
    try:
        return int(value)
    except (TypeError, ValueError):
        raise ValueError(
            f"cannot determine which worker this is: vLLM's parallel_config.{field} is {value!r}"
        ) from None
