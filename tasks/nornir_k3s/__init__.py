"""A highly available K3s cluster on an external datastore, from a Nornir inventory."""
