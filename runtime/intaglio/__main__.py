"""`python -m intaglio`: the command `intaglio` of this interpreter."""

import sys

from intaglio.cli import main

sys.exit(main())
