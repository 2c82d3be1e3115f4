"""`python -m anystride` is the command `anystride`."""

import sys

from anystride.lab.cli import main

if __name__ == "__main__":
    sys.exit(main())
