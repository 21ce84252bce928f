"""Answers to tables: the schema, the readers, and writing them as files."""
