"""What is true on a host: one class a fact."""
