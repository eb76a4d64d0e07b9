"""The phases of a deploy, one module each."""
