"""The server of `charlm serve`: an API for programs, and the page, over HTTP."""
