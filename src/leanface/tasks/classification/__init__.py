"""What classifiers have in common: their data, losses, measures and pictures."""
