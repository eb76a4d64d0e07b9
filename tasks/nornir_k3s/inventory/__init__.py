"""Config and inventory files, and the cluster they describe."""
