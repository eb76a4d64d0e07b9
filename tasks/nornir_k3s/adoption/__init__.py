"""An inventory of a cluster that exists: what is read from its hosts, and what of it becomes which setting."""
