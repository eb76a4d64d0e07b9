"""What is kept on the controller."""
