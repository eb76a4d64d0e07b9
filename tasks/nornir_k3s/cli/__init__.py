"""The command `nornir-k3s`."""
