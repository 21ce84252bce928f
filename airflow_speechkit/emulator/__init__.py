"""A local SpeechKit: API v2 and v3 on loopback, with a bucket beside it and a recogniser that really hears.

Nothing here imports the rest of the package: what the two agree on is the service's public documentation.
"""
