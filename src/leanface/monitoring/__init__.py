"""Watch whether a service is well and sees what it was trained for. Arithmetic only: no clock, thread or network."""
