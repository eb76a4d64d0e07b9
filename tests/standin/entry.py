"""PyInstaller's entry point."""

import contextlib
import gc
import os
import sys

gc.disable()  # while modules are imported, and in commands that are over at once

from k3s_standin.main import main  # noqa: E402 - see above

status = main()
with contextlib.suppress(BrokenPipeError):
    sys.stdout.flush()
os._exit(status)  # Python would take apart what was imported
