"""Copying K3s' data from one datastore to another: rows of a table, keys of an etcd."""
