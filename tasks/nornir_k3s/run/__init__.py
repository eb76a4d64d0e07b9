"""One run: its context, its facts, its selection of hosts."""
