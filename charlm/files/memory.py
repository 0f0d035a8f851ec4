"""Memory that is free: in the machine, and within the limits of control groups."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

GROUP_FILES = {
    "": ("memory.max", "memory.current", "inactive_file"),
    "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}
"""Files of the limit and the use of a control group of version 2 and 1, by the folder of the tree,
and the name of its caches in memory.stat."""


def free_memory(root: Path = Path("/")) -> int | None:
    """Return the bytes of memory that this process may still use; None except on Linux.

    The least of the machine's free memory and of what the limits of its control groups leave.
    `root` is the folder that holds `proc` and `sys`.
    """
    with contextlib.suppress(OSError, ValueError):
        words = (root / "proc/meminfo").read_text(encoding="ascii").split()
        left = [int(words[words.index("MemAvailable:") + 1]) * 1024]
        with contextlib.suppress(OSError, ValueError):
            left += _left_in_groups(root)
        return max(min(left), 0)
    return None


def _left_in_groups(root: Path) -> Iterator[int]:
    """Yield the bytes that each control group of this process leaves, version 2 or 1.

    A job of Slurm has the limits of all groups around its own. A container may see its own group
    alone, as the top of the tree.
    """
    lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    for _, kinds, path in (line.split(":", 2) for line in lines):
        for kind in GROUP_FILES.keys() & kinds.split(","):
            own = root / "sys/fs/cgroup" / kind / path.lstrip("/")
            limit, used, caches = GROUP_FILES[kind]
            for group in (own, *own.parents):
                with contextlib.suppress(OSError, ValueError):  # no such group, or no limit
                    left = int((group / limit).read_text(encoding="ascii"))
                    left -= int((group / used).read_text(encoding="ascii"))
                    stat = (group / "memory.stat").read_text(encoding="ascii").split()
                    yield left + int(stat[stat.index(caches) + 1])
