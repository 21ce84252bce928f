"""A local SpeechKit: API v2 and v3 on loopback, with a bucket beside it and a recogniser for English speech.

Nothing here imports a client: what the two agree on is the service's public documentation.
"""

__version__ = "0.1.0"
