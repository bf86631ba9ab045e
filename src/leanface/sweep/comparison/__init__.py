"""Trials side by side: which of them no other one beats, and which one to take."""
