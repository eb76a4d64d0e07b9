"""What drift compares: facts against the desired state. Pure."""
