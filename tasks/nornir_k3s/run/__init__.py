"""One run: its context, reading facts, the selection of hosts and phases."""
