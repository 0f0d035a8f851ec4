"""Sources of text: files, tables, the hub."""
