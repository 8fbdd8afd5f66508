# SPDX-License-Identifier: Apache-2.0
"""The kinds of commands, as classes of typer: what all commands of a kind have in common."""

from __future__ import annotations

import sys
from typing import Any

from typer.core import TyperCommand, TyperGroup

from lmcache_plugin_adapter.linux.supported import why_unsupported

from .console import fail
from .inputs import UsageError
from .options import ALIASES


class _FlagsWithoutType:
    """Hide the type of flags in the help: newer versions of typer show ``<bool>``."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the parameters of the command, ``--help`` included."""
        params: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        for param in params:
            if getattr(param, "is_flag", False):
                param.metavar = ""
        return params


class Command(_FlagsWithoutType, TyperCommand):
    """A command, which accepts shorter names of options, too."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse arguments after replacing aliases."""
        known = {name for param in self.params for name in param.opts}
        aliases = {
            alias: name for alias, name in ALIASES.items() if name in known and alias not in known
        }
        for i, word in enumerate(args):
            if word == "--":
                break
            alias, equals, value = word.partition("=")
            args[i] = aliases.get(alias, alias) + equals + value
        return super().parse_args(ctx, args)


class SupervisorCommand(Command):
    """A command that runs supervisors or sends requests to them."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command, on a system that has supervisors."""
        why = why_unsupported()
        if why is not None:
            sys.exit(fail(UsageError(why)))
        return super().invoke(ctx)


class Group(_FlagsWithoutType, TyperGroup):
    """The command that holds the others."""
