"""Files: atomic writing, safe reading of untrusted files, escaping for terminals."""
