"""A local SpeechKit: API v2 and v3 on loopback, with a bucket and a recogniser for English speech.

The emulator follows the service's public documentation and imports no client.
"""

__version__ = "0.1.0"
