"""A stand-in for K3s: as much of it as a deploy tool meets, on real datastores; no containers run in it."""
