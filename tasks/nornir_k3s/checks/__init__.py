"""What the preflight looks at on each host, and how it is judged."""
