"""K3s releases: where their files are, and how they come to the controller."""
