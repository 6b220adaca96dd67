"""Which files a user could read, asked by root before it becomes that user: what a reload will find then.

Takes on the user's identity for the moment of the question, since modes alone don't tell (access control lists, directories
above the file). For one thread only; never raises: who isn't root, or may not change, learns nothing and is told so by None.
"""

import os
import pwd
from collections.abc import Iterable


def find_unreadable(user: str, paths: Iterable[str]) -> list[str] | None:
    """Those of `paths` that `user` can't read; None = that can't be told here. access(2), of effective ids."""
    if os.geteuid() != 0:
        return None
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        return None
    own_group, own_groups = os.getegid(), os.getgroups()
    try:
        os.setgroups(os.getgrouplist(user, entry.pw_gid))
        os.setegid(entry.pw_gid)
        os.seteuid(entry.pw_uid)
        return [path for path in paths if not os.access(path, os.R_OK, effective_ids=True)]
    except OSError:  # a container's root that may not
        return None
    finally:
        os.seteuid(0)
        os.setegid(own_group)
        os.setgroups(own_groups)
