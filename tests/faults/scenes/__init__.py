"""What is played in each cell of the matrix; importing this enters all of it."""

from __future__ import annotations

from tests.faults.matrix import SCENES
from tests.faults.scenes import connection, killed, service, storage

ALL = [connection, killed, service, storage]
SCENES.sort(key=lambda one: (list(type(one.fault)).index(one.fault), list(type(one.stage)).index(one.stage)))
