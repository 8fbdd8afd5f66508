# SPDX-License-Identifier: Apache-2.0
"""Options that several commands share; typer reads these annotations at run time."""

from __future__ import annotations

from typing import Annotated

import typer

from lmcache_plugin_adapter.configuration.durations import read_duration
from lmcache_plugin_adapter.contract.identity import Role
from lmcache_plugin_adapter.messages.problem import InvalidValueError, quoted


def _complete_plugin(incomplete: str) -> list[str]:
    from lmcache_plugin_adapter.cli.supervisors.survey import complete_plugin

    return complete_plugin(incomplete)


def read_seconds(text: str) -> float:
    """Return a duration of the command line in seconds, as in settings; never negative.

    Raises:
        typer.BadParameter: It is none.
    """
    try:
        return read_duration(float(text) if text.replace(".", "", 1).isdecimal() else text)
    except InvalidValueError as error:
        hint = f" ({error})" if str(error) else ""
        raise typer.BadParameter(
            f"it is {quoted(text)}; accepted are seconds, or a duration such as 30s or 1h30m{hint}"
        ) from None


Files = Annotated[
    list[str] | None,
    typer.Argument(
        help="Plugin files, directories or pkg:NAME, in place of the configuration's locations.",
        show_default=False,
    ),
]
Config = Annotated[
    str | None,
    typer.Option(
        "--config",
        "-c",
        metavar="FILE",
        envvar="LMCACHE_CONFIG_FILE",
        help="LMCache's configuration, lmcache.yaml.",
    ),
]
TensorParallel = Annotated[
    int, typer.Option("--tp", min=1, help="Tensor parallel size, as given to vLLM.")
]
PipelineParallel = Annotated[
    int, typer.Option("--pp", min=1, help="Pipeline parallel size, as given to vLLM.")
]
Server = Annotated[
    bool,
    typer.Option(
        "--server",
        help="Use LMCache's multiprocess server as the host; FILE is then the --server-module "
        "configuration.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Names = Annotated[
    list[str] | None,
    typer.Argument(
        help="Plugins, as status shows them; also a file name or path.",
        autocompletion=_complete_plugin,
        show_default=False,
    ),
]
Engine = Annotated[
    int | None, typer.Option("--engine", metavar="PID", help="Select this engine process.")
]
EngineRole = Annotated[
    Role | None,
    typer.Option("--role", case_sensitive=False, help="Select engine processes of this role."),
]
WorkerId = Annotated[
    int | None, typer.Option("--worker-id", metavar="N", help="Select workers of this rank.")
]
Replica = Annotated[
    int | None, typer.Option("--dp-rank", metavar="N", help="Select this data-parallel replica.")
]
ALIASES = {"--rank": "--worker-id", "--dp": "--dp-rank"}
"""Shorter names of options, where a command has no option of this name."""

Everything = Annotated[
    bool, typer.Option("--all", help="Apply to all plugins, or to all plugins that a name matches.")
]
OtherContainers = Annotated[
    bool,
    typer.Option("--other-containers", help="With --all: include other containers' plugins."),
]
AllUsers = Annotated[
    bool, typer.Option("--all-users", help="Root: include the engines of other users.")
]
Wait = Annotated[bool, typer.Option("--wait", help="Return when the operation is complete.")]
Timeout = Annotated[
    float | None,
    typer.Option(
        "--timeout",
        metavar="DURATION",
        parser=read_seconds,
        help="Time limit for --wait: seconds, or such as 30s or 5m.",
    ),
]
