"""Run a command and print its peak memory: `launch.py COMMAND…`.

The peak of a process starts with that of its parent, and the benchmark is large; this process is small.
"""

import os
import sys

child = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ)
_, status, usage = os.wait4(child, 0)
print("peak memory, KiB:", usage.ru_maxrss, flush=True)
sys.exit(os.waitstatus_to_exitcode(status))
