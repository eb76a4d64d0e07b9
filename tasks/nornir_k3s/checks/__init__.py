"""The preflight checks: facts of the hosts in, findings out. Pure."""
