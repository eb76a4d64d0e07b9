"""The types of this package: cluster, facts, desired state, findings, reports. No I/O."""
