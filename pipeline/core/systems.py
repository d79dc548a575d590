"""What Linux and macOS do differently: the one place that asks which of them this is."""

import fcntl
import os
import platform
import re
import resource
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

STATUS, PROCESSORS = Path("/proc/self/status"), Path("/proc/cpuinfo")
"""Of Linux."""
MACS_OPEN_FILES = 10_240
"""What macOS lets a process raise its limit of open files to, whatever it calls the hard limit (OPEN_MAX)."""


def cores() -> int:
    """Return how many processors this process may run on, as far as the system says."""
    if hasattr(os, "process_cpu_count"):  # Python 3.13
        return os.process_cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def processor() -> str:
    """Return the processor's name."""
    if sys.platform == "darwin":
        with suppress(OSError, subprocess.CalledProcessError):
            name = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
            return subprocess.run(name, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603
    with suppress(OSError):
        if found := re.search(r"^model name\s*:\s*(.*)$", PROCESSORS.read_text(encoding="utf-8"), re.MULTILINE):
            return found[1].strip()
    return platform.processor() or platform.machine()


def peak_memory() -> int:
    """Return the largest resident size of this process so far, in bytes.

    On Linux getrusage would not do: there a program starts with the peak of the process that started it.
    """
    with suppress(OSError):
        if found := re.search(r"^VmHWM:\s+(\d+) kB$", STATUS.read_text(), re.MULTILINE):
            return int(found[1]) * 1024
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size if sys.platform == "darwin" else size * 1024


def sync(descriptor: int) -> None:
    """Wait until the disk itself has what was written; on macOS, fsync alone leaves it in the disk's own cache."""
    if sys.platform == "darwin":
        with suppress(OSError):  # of a file system that cannot
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
            return
    os.fsync(descriptor)


def allow_open_files(wanted: int) -> None:
    """Raise this process's limit of open files towards what is wanted, as far as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    for limit in (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), MACS_OPEN_FILES):
        with suppress(ValueError, OSError):
            if limit > soft:
                resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
                return
