"""Compare trials side by side: which ones no other trial beats, and which one to take."""
