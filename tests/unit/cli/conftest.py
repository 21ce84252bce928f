"""An archive on a disk, and the service whose operations it has."""

from tests.unit.archive.conftest import archive, service

__all__ = ["archive", "service"]
