"""Asks an external datastore with K3s' own credentials, from each server."""
