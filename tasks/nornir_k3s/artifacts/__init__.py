"""K3s' binary, installer and images: where they come from, and how they come to the controller."""
