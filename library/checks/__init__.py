"""Whether a library is what it says: backups, verification and repair."""
