"""Who else of this machine may get at a file: the umask of what is made, the modes of what is read.

What Airlock makes is for nobody else, whatever umask it is called with. Programs that are not
Airlock's (the service, its checkouts and builds) get the caller's, which travels in the environment
from one of our processes to the next.
"""

from __future__ import annotations

import grp
import os
import pwd
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

VARIABLE = "AIRLOCK_UMASK"

_PRIVATE = 0o077
_ACL = "system.posix_acl_access"
_READ, _WRITE, _SEARCH = 4, 2, 1


def make_private() -> None:
    """From here on, files and folders are made for this user alone."""
    before = os.umask(_PRIVATE)
    os.environ.setdefault(VARIABLE, f"{before:03o}")


def callers_umask() -> int:
    """The umask that Airlock was called with: for programs that are not Airlock's."""
    given = os.environ.get(VARIABLE, "")
    with suppress(ValueError):
        return int(given, 8) & 0o777
    now = os.umask(_PRIVATE)
    os.umask(now)
    return now


# ---------------------------------------------------------------- what others may do


@dataclass(frozen=True, slots=True, kw_only=True)
class _User:
    """Another user of this machine. uid -1: any that nothing names."""

    uid: int = -1
    groups: frozenset[int] = frozenset()

    def may(self, bit: int, of: os.stat_result) -> bool:
        """Whether the mode gives it to this user: of the three sets of bits one counts."""
        if self.uid == of.st_uid:
            return bool(of.st_mode >> 6 & bit)
        return bool(of.st_mode >> (3 if of.st_gid in self.groups else 0) & bit)


@dataclass(frozen=True, slots=True, kw_only=True)
class Exposure:
    """What another user may do to a file, in words, and the command that ends it."""

    found: str
    remedy: str


def exposure(path: Path) -> Exposure | None:
    """How another user than ourselves and root may read, change or replace a file; None if not.

    A file that may be read by all is not exposed where a folder above it keeps them out.
    """
    # Of a link, too: whoever may write beside it says where it leads.
    link, path = path.absolute(), path.resolve()
    ways = [[(each, _stat(each)) for each in (found, *found.parents)] for found in (link, path)]
    file = ways[-1][0][1]
    ours = {0, os.geteuid()}
    if file.st_uid not in ours:
        return Exposure(
            found=f"belongs to the user {_name(file.st_uid)}",
            remedy=f"chown {_name(os.geteuid())} {path}",
        )
    for user in _others((modes for way in ways for _, modes in way), ours):
        for way in ways:
            if (folder := _replaces(user, way)) is not None:
                return Exposure(
                    found=f"can be replaced by another user, who may write to {folder}",
                    remedy=f"chmod go-w {folder}",
                )
        if not all(user.may(_SEARCH, modes) for _, modes in ways[-1][1:]):
            continue
        for bit, doing in ((_WRITE, "changed"), (_READ, "read")):
            if user.may(bit, file):
                return Exposure(found=f"can be {doing} by another user", remedy=f"chmod 600 {path}")
    return None


def _replaces(user: _User, way: Sequence[tuple[Path, os.stat_result]]) -> Path | None:
    """A folder on the way to a file in which the user may put another one in its place."""
    for (folder, modes), (_, inside) in zip(way[:0:-1], way[-2::-1], strict=True):
        if not user.may(_SEARCH, modes):
            return None
        # With the sticky bit, only what is one's own can be replaced.
        replaceable = not modes.st_mode & stat.S_ISVTX or inside.st_uid == user.uid
        if replaceable and user.may(_WRITE, modes):
            return folder
    return None


def _stat(path: Path) -> os.stat_result:
    """Its modes; where an access list gives more than they say, as if given to all."""
    found = path.stat()
    with suppress(OSError):
        os.getxattr(path, _ACL)
        mode = found.st_mode | (found.st_mode >> 3 & 7)
        return os.stat_result((mode, *found[1:]))
    return found


def _others(places: Iterable[os.stat_result], ours: set[int]) -> Iterator[_User]:
    """Any user at all, and the members of the groups that the places belong to."""
    yield _User()
    groups = {each.st_gid for each in places}
    members = {name for gid in groups for name in _members(gid)}
    members |= {each.pw_name for each in pwd.getpwall() if each.pw_gid in groups}
    for name in sorted(members):
        with suppress(KeyError):
            user = pwd.getpwnam(name)
            if user.pw_uid not in ours:
                belongs = os.getgrouplist(name, user.pw_gid)
                yield _User(uid=user.pw_uid, groups=frozenset(belongs))


def _members(gid: int) -> list[str]:
    with suppress(KeyError):
        return grp.getgrgid(gid).gr_mem
    return []


def _name(uid: int) -> str:
    with suppress(KeyError):
        return pwd.getpwuid(uid).pw_name
    return str(uid)
