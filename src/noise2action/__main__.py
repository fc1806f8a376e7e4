"""`python -m noise2action` is `n2a`."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
