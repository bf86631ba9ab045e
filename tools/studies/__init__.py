"""What each part of a method is worth: variants of it under equal conditions, and the table of what they reach."""
