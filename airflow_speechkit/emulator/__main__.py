"""``python -m airflow_speechkit.emulator``."""

from __future__ import annotations

import sys

from airflow_speechkit.emulator.options import main

if __name__ == "__main__":
    sys.exit(main())
