"""Recordings: where they are, what they are, what their recognition will cost."""
