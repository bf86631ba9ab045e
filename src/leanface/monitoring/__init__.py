"""Is the service well, and does it see what it was trained for? Pure arithmetic: no clock, no thread, no network."""
