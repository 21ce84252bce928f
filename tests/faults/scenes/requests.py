"""What the requests look like by which a step is recognised as it goes by, as regular expressions."""

from __future__ import annotations

CLAIM = r"PUT /archives/\S+\.claim\.json"
RECORD = r"PUT /archives/\S+/operations/\S+/submission\.json"
OUTCOME_READ = r"GET /archives/\S+/operations/\S+/outcome\.json"
ANSWER_WRITTEN = r"PUT /archives/\S+/operations/\S+/(operation|recognition)\.json\.gz"
OUTCOME = r"PUT /archives/\S+/operations/\S+/outcome\.json"
ANSWER_READ = r"GET /archives/\S+/operations/\S+/operation\.json\.gz"
RECORDING_LOOKED_UP = r"HEAD /recordings/\S+\.ogg"
WORDS_FILE = r"PUT /lake/\S+/words/"
ANY_FILE = r"PUT /lake/"
FILE_READ = r"GET /lake/"
COPY = r"COPY .*words"
COMMIT = r"COMMIT\x00"
