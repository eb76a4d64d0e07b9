"""Probes of an external datastore: connects as K3s does, with its credentials, from each server."""
