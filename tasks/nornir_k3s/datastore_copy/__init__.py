"""Copying K3s' table from one SQL database to another, row for row."""
