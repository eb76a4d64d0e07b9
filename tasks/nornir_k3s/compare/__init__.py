"""Drift: compares the facts of the hosts with the desired state. Pure."""
