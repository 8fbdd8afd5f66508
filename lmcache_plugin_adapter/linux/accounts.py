# SPDX-License-Identifier: Apache-2.0
"""Look up the user and the groups that a program is to run as."""

from __future__ import annotations

import grp
import os
import pwd


class Account:
    """A user as a process has it.

    Attributes:
        uid: The user's number.
        gid: The number of the main group.
        groups: The numbers of all groups.
        name: The user's name; the number as text if it has none.
        home: The home directory.
    """

    __slots__ = ("gid", "groups", "home", "name", "uid")

    def __init__(self, uid: int, gid: int, groups: tuple[int, ...], name: str, home: str) -> None:
        self.uid = uid
        self.gid = gid
        self.groups = groups
        self.name = name
        self.home = home

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which programs know their user."""
        return {"HOME": self.home, "USER": self.name, "LOGNAME": self.name}


def look_up_account(user: str | None, group: str | None) -> Account:
    """Return the account for names or numbers.

    Args:
        user: None for the user of this process.
        group: None for the user's main group, or for a user without a name, the same number.

    Raises:
        LookupError: There is no such user or group; the text says which.
    """
    name = str(os.geteuid()) if user is None else user
    try:
        found = pwd.getpwuid(int(name)) if _is_number(name) else pwd.getpwnam(name)
        uid, gid, name, home = found.pw_uid, found.pw_gid, found.pw_name, found.pw_dir
    except KeyError:
        found = None
        if not _is_number(name):
            raise LookupError(f"there is no user {name!r}") from None
        uid = gid = int(name)
        home = "/"
    if group is not None:
        try:
            gid = int(group) if _is_number(group) else grp.getgrnam(group).gr_gid
        except KeyError:
            raise LookupError(f"there is no group {group!r}") from None
    groups = (gid,) if found is None else tuple(os.getgrouplist(name, gid))
    return Account(uid, gid, groups, name, home)


def _is_number(text: str) -> bool:
    """Whether this is the number of a user or group; the kernel reserves the highest one."""
    return text.isascii() and text.isdecimal() and int(text) < (1 << 32) - 1
