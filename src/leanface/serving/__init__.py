"""`leanface serve`: the network behind HTTP."""
