"""The scripts that change hosts; no other code writes on a host."""
