# SPDX-License-Identifier: Apache-2.0
"""The plugins of one rank: from LMCache's configuration and SGLang's parallel sizes."""

from __future__ import annotations

import importlib
import logging
from typing import TYPE_CHECKING, Any

from lmcache_plugin_adapter.contract.engine_settings import (
    settings_section,
    why_engine_runs_nothing,
)
from lmcache_plugin_adapter.contract.identity import ProcessIdentity, Role
from lmcache_plugin_adapter.engine.launcher import LaunchError, RuntimePluginLauncher

from . import LOGGER, PLUGIN_LOGGER

if TYPE_CHECKING:
    from collections.abc import Mapping

log = logging.getLogger(LOGGER)

_LAUNCHERS = "_lmcache_plugin_adapter_launchers"


def start_plugins(cache: object, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Start the plugins that LMCache's configuration names, if it names any.

    Args:
        cache: SGLang's cache with LMCache behind it.
        args: The positional arguments it was created with; the first are its parameters.
        kwargs: Its keyword arguments.

    Raises:
        Exception: SGLang or LMCache has another interface.
    """
    config = _read_config(kwargs.get("lmcache_config_file"))
    extra_config = getattr(config, "extra_config", None)
    if why_engine_runs_nothing(extra_config, getattr(config, "runtime_plugin_locations", None)):
        return
    identities = read_identities(args[0] if args else kwargs["params"], kwargs, _parallel())
    replica = identities[0].dp_rank
    if replica != 0 and settings_section(extra_config).get("data_parallel") != "all":
        log.info(
            "Runtime plugins run in replica 0, not in replica %d "
            "(extra_config.runtime_plugins.data_parallel: all runs them in each)",
            replica,
        )
        return
    launchers: list[RuntimePluginLauncher] = []
    setattr(cache, _LAUNCHERS, launchers)
    for identity in identities:
        launcher = RuntimePluginLauncher.for_identity(config, identity, plugin_logger=PLUGIN_LOGGER)
        try:
            launcher.launch_or_raise()
        except LaunchError as error:
            log.error("Cannot start runtime plugins: %s", error)  # noqa: TRY400
            continue
        launchers.append(launcher)


def stop_plugins(cache: object) -> None:
    """Stop the plugins that :func:`start_plugins` has started; do not wait for them."""
    for launcher in getattr(cache, _LAUNCHERS, ()):
        launcher.stop_plugins(wait=False)


def read_identities(
    params: object, kwargs: Mapping[str, Any], parallel: object
) -> list[ProcessIdentity]:
    """Return this process's identities: a worker, and on rank 0 also the scheduler.

    Args:
        params: The cache's parameters, which have the pipeline's rank and size.
        kwargs: Its keyword arguments, which have the tensor-parallel rank and size.
        parallel: SGLang's parallel state, which has the replica.
    """
    tp_size, tp_rank = int(kwargs["tp_size"]), int(kwargs["tp_rank"])
    pp_size = int(getattr(params, "pp_size", 1) or 1)
    pp_rank = int(getattr(params, "pp_rank", 0) or 0)
    rank = pp_rank * tp_size + tp_rank
    dp_rank = dp_size = 0
    if int(getattr(parallel, "attn_dp_size", 1) or 1) == 1:
        # With attention data parallelism, the tensor-parallel ranks span all groups.
        dp_rank = int(getattr(parallel, "dp_rank", 0) or 0)
        dp_size = int(getattr(parallel, "num_dp_ranks", 0) or 0)
    replica = {"dp_rank": dp_rank, "dp_size": max(dp_size, dp_rank + 1)}
    count = tp_size * pp_size
    worker = ProcessIdentity(Role.WORKER, rank, count, **replica)
    scheduler = ProcessIdentity(Role.SCHEDULER, -1, count, **replica)
    return [worker, scheduler] if rank == 0 else [worker]


def _read_config(path: object) -> Any:
    """Return LMCache's configuration, as SGLang's connector reads it."""
    module: Any = importlib.import_module("lmcache.v1.config")
    return module.load_engine_config_with_overrides(config_file_path=path)


def _parallel() -> object:
    context: Any = importlib.import_module("sglang.srt.runtime_context")
    return context.get_parallel()
