"""The operator that loads the tables' files into a database."""
