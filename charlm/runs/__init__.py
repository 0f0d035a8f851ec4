"""Run directories: the only code that writes model files."""
