"""`python -m leanface.sweep` is `leanface sweep`."""

import importlib
import sys

# By name, as it imports the sweep: neither is below the other.
sys.exit(importlib.import_module("leanface.cli").main(["sweep", *sys.argv[1:]]))
