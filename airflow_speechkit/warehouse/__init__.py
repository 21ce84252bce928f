"""The tables in a database: what they look like there, how rows get in, and how they are deleted.

Nothing here imports Airflow: the hook of the database comes in from ``transfers``.
"""
