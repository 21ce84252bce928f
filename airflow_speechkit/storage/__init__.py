"""Files in a folder on a disk or in a bucket: the one way to read and write those of the archive and the tables."""

from airflow_speechkit.storage.folder import Folder

__all__ = ["Folder"]
