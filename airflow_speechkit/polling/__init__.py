"""When operations are asked for.

All tasks of a process wait through the `poller`, one for each connection and event loop. It carries out what a pure
core decides: the `scheduler` plans checks by a `schedule`, lets tasks take turns, and spends what the `rate_limit`
allows.
"""
