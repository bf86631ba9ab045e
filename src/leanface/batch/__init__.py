"""Large collections of photos: from and to any storage that fsspec knows, over the machines of a Ray cluster."""
