"""What a host of each role must look like."""
