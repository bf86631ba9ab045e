"""The proof that people read: pictures of faces, summary.json with its gates, one self-contained page."""
