"""The command line: one file per command, which only defines flags and calls the library."""
