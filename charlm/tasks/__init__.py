"""Tasks: what is learned from the states of an encoder."""
