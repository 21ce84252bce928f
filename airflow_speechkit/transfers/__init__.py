"""From the tables' files into a database: the operator, one module for each dialect, and the views."""
