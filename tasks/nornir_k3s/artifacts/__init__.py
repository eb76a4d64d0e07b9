"""K3s' binary, installer and images on the controller: from a folder, or downloaded and verified."""
