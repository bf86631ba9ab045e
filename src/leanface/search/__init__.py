"""From what a network may cost and how wrong it may be to its architecture, by measured time and measured errors."""
