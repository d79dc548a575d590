"""Take away what Linux has and macOS has not: Python runs this first where the folder is on its path.

/proc and /sys are closed to Headswap's own code alone; psutil and other libraries have code for each system.
"""

import io
import mmap
import os
import resource
import select
import signal
import sys
import time

ABSENT = {
    os: ("sched_", "posix_fadvise", "posix_fallocate", "memfd_", "MFD_", "eventfd", "EFD_", "timerfd", "TFD_", "pidfd_",
         "copy_file_range", "splice", "SPLICE_", "getrandom", "GRND_", "setns", "unshare", "CLONE_", "O_TMPFILE",
         "O_PATH", "O_NOATIME", "O_DIRECT", "O_LARGEFILE", "O_RSYNC", "getxattr", "setxattr", "listxattr",
         "removexattr", "getresuid", "getresgid", "setresuid", "setresgid", "fdatasync", "POSIX_FADV_"),
    resource: ("prlimit", "RUSAGE_THREAD"),
    select: ("epoll", "EPOLL"),
    mmap: ("MADV_DONTFORK", "MADV_DOFORK", "MADV_HUGEPAGE", "MADV_NOHUGEPAGE", "MADV_HWPOISON", "MADV_DONTDUMP"),
    signal: ("SIGRTM", "SIGPWR", "SIGSTKFLT", "SIGPOLL", "SIGCLD", "sigwaitinfo", "sigtimedwait"),
    time: ("CLOCK_BOOTTIME", "CLOCK_TAI"),
}  # fmt: skip
LINUX = ("/proc", "/sys", "/dev/shm")

for module, beginnings in ABSENT.items():
    for name in [name for name in vars(module) if name.startswith(beginnings)]:
        delattr(module, name)


def _asked_by_headswap():
    """Whether the nearest caller outside the standard library is Headswap."""
    frame = sys._getframe(2)
    while frame and (os.sep + "site-packages" not in frame.f_code.co_filename):
        if f"{os.sep}pipeline{os.sep}" in frame.f_code.co_filename:
            return True
        frame = frame.f_back
    return False


def _closed(real):
    def call(path, *given, **named):
        where = os.fspath(path) if isinstance(path, (str, os.PathLike)) else ""
        if where.startswith(LINUX) and _asked_by_headswap():
            raise FileNotFoundError(2, "No such file or directory", where)
        return real(path, *given, **named)

    return call


for module, name in ((io, "open"), (os, "open"), (os, "stat"), (os, "lstat"), (os, "scandir"), (os, "listdir")):
    setattr(module, name, _closed(getattr(module, name)))
