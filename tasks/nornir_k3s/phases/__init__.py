"""The phases of a deploy."""
