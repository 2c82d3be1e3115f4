"""The commands. Each file adds one command to the parser and runs it; heavy packages are imported when it runs."""
