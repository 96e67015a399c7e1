"""`python -m p2p`: the same as the console script."""

import sys

from p2p.cli import main

sys.exit(main())
