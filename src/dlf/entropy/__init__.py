"""Range coding with integer probability tables and the four-step schedule."""
