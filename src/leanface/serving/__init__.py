"""`leanface serve`: the network as an HTTP service; what the demo shares with it, too."""
