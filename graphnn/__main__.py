"""`python -m graphnn`: the command line of `graphnn`."""

import sys

from graphnn.cli import main

if __name__ == "__main__":
    sys.exit(main())
