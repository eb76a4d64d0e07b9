"""`python -m nornir_k3s.cli` is `nornir-k3s`."""

import sys

from nornir_k3s.cli.main import main

sys.exit(main())
