"""`python -m leanface` is `leanface`."""

import sys

from leanface.cli import main

sys.exit(main())
