"""The vector index: generations of immutable files, exact or compressed, and the pointer to the one that answers."""
