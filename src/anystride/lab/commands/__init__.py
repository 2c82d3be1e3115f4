"""The commands: each file adds one to the parser and runs it. Heavy packages are imported when it runs."""
