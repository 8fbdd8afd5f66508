# SPDX-License-Identifier: Apache-2.0
"""Run a plugin's main function; turn exceptions into one line and an exit code."""

from __future__ import annotations

import sys

from lmcache_plugin_adapter.contract.plugin_states import NO_RESTART_CODE

from .context import context
from .errors import ContextError, SettingsError
from .printing import debug, error
from .stopping import Stop, Stopped

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from .context import Context


def run(main: Callable[[Context, Stop], int | None]) -> int:
    """Call ``main`` and return the exit code.

    Unusable settings and a module that is not installed lead to 125, "do not restart me". Any other
    exception leads to 1, one error line, and its traceback at debug level. Without an engine, the
    code is 2, and the line shows how to try the plugin.

    Args:
        main: Receives the context and the stop; returns an exit code, or None for 0.
    """
    try:
        ctx = context()
    except ContextError as wrong:
        print(f"error: {wrong}", file=sys.stderr)
        return 2
    stop = Stop(ctx)
    try:
        return main(ctx, stop) or 0
    except Stopped:
        return 0
    except (SettingsError, ContextError) as wrong:
        error(f"{str(wrong)[:1].upper()}{str(wrong)[1:]}")
        return NO_RESTART_CODE
    except ModuleNotFoundError as missing:
        _report_missing(missing, getattr(main, "__module__", None) or "__main__")
        return NO_RESTART_CODE
    except Exception as failure:  # noqa: BLE001 - the last chance to log it
        import traceback

        where = traceback.extract_tb(failure.__traceback__)[-1]
        text = "; ".join(str(failure).splitlines())
        error(f"Failed: {type(failure).__name__}: {text} ({where.name}, line {where.lineno})")
        debug(traceback.format_exc())
        return 1


def exit_without(missing: ModuleNotFoundError) -> NoReturn:
    """Log which module is not installed and what to install; exit with 125.

    For imports at the top of a plugin, which Python executes before :func:`run`::

        try:
            import msgspec
        except ModuleNotFoundError as missing:
            kit.exit_without(missing)

    Args:
        missing: The exception of the import.
    """
    _report_missing(missing, "__main__")
    sys.exit(NO_RESTART_CODE)


def _report_missing(missing: ModuleNotFoundError, module: str) -> None:
    from .run_entry_point import advice

    error(advice(module, missing.name or str(missing)).removeprefix("<3>"))
