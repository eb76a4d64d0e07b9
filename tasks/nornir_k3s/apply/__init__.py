"""The only code that writes on hosts."""
