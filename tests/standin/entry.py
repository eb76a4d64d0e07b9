"""PyInstaller's entry point."""

import sys

from k3s_standin.main import main

sys.exit(main())
