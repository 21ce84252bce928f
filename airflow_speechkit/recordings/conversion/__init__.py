"""Recordings that the service doesn't take become ones that it does."""
