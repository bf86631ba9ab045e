"""`python -m leanface.sweep` is `leanface sweep`."""

import sys

from leanface.errors import LeanFaceError
from leanface.sweep.app import main

try:
    main(sys.argv[1:])
except LeanFaceError as error:
    sys.exit(f"{type(error).__name__}: {error}")
