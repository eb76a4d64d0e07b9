"""The desired state of a host, by role."""
