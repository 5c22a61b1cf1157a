"""Images of a run: listed, mirrored, decoded."""
