"""Settings, presets and recipes."""
