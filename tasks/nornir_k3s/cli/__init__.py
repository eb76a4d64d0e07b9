"""The command `nornir-k3s`: one module a subcommand, imported when it was chosen."""
