"""The typed words of this package. No I/O."""
