"""Suggested commands for the command line; see `charlm.commands`."""

from charlm.commands import command as command
