"""``python -m airflow_speechkit.cli``."""

from __future__ import annotations

import sys

from airflow_speechkit.cli import main

sys.exit(main())
