"""The API that programs and the command line call."""
