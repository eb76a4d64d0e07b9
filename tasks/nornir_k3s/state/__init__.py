"""What a run saves on the controller: secrets, keys, what is known of a cluster, and locks."""
