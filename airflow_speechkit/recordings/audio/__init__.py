"""Audio formats, read from their own bytes."""
