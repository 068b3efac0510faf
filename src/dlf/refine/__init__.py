"""What an encoder that searches needs torch for: gradients through the networks of a bundle."""
