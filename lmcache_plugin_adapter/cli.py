"""The command ``lmcache-plugins``: options and help; what a command does is in its own module."""

from __future__ import annotations

import io
import sys
from typing import Annotated, Optional

import typer

from . import __version__
from .identity import Role  # noqa: TC001 - typer reads the annotations

app = typer.Typer(
    name="lmcache-plugins",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

# typer reads these annotations when the commands run, on Python 3.10 too: hence Optional.
ConfigOption = Annotated[
    Optional[str],  # noqa: UP045
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

ServerOption = Annotated[
    bool,
    typer.Option(
        "--server",
        help="For LMCache's multiprocess server; FILE is then what --server-module is given.",
    ),
]


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"lmcache-plugins {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Run LMCache runtime plugins: programs that live and die with a vLLM engine."""


@app.command()
def run(
    config: ConfigOption = None,
    tp: TensorParallel = 1,
    pp: PipelineParallel = 1,
    role: Annotated[
        Optional[Role],  # noqa: UP045
        typer.Option(case_sensitive=False, help="Stand in for this one process only."),
    ] = None,
    worker_id: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=0, help="With --role worker: its rank, 0 if not given."),
    ] = None,
    worker_count: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=1, help="With --role: workers of the engine, TP x PP if not given."),
    ] = None,
    seconds: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option("--for", metavar="SECONDS", min=0, help="Stop after this time."),
    ] = None,
    server: ServerOption = False,
) -> None:
    """Run the plugins a configuration names, without vLLM or a GPU, until Ctrl-C.

    Stand-in engines take vLLM's place, one process each: the scheduler and
    TP x PP workers; with --server, LMCache's multiprocess server. What the
    plugins print goes to stderr, as in an engine.
    Ctrl-C stops everything; a second one does not wait for the grace period.
    """
    from . import cli_run

    request = cli_run.Request(config, tp * pp, role, worker_id, worker_count, seconds, server)
    sys.exit(cli_run.run(request))


@app.command()
def check(
    config: ConfigOption = None,
    tp: TensorParallel = 1,
    pp: PipelineParallel = 1,
    dp: Annotated[int, typer.Option("--dp", min=1, help="Data parallel size.")] = 1,
    strict: Annotated[
        bool, typer.Option("--strict", help="Warnings count as errors for the exit status.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document instead of a table.")
    ] = False,
    server: ServerOption = False,
) -> None:
    """Say what would run where and how, and what would not and why.

    Exit status: 0 all is well, 1 a plugin that should run cannot (with
    --strict also: a warning), 2 the configuration cannot be read.
    """
    from . import cli_check

    request = cli_check.Request(config, tp * pp, dp, strict, as_json, server)
    sys.exit(cli_check.check(request))


@app.command()
def doctor(
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document instead of lines.")
    ] = False,
    server: Annotated[
        bool, typer.Option("--server", help="Look at LMCache's multiprocess server, not at vLLM.")
    ] = False,
) -> None:
    """Say whether vLLM in this environment would run plugins with this package, and why not.

    Run it where the engine runs: in its container, with its interpreter and
    environment. Exit status: 0 it would, 1 it would not.
    """
    from . import cli_doctor

    sys.exit(cli_doctor.doctor(as_json, server))


def main() -> None:
    """Entry point of the command."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Names of files may hold what the terminal's encoding lacks.
        sys.stdout.reconfigure(errors="backslashreplace")
    app(prog_name="lmcache-plugins")
