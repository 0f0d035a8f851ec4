"""The web page about a model: three files, and the exports that hold them in one."""
