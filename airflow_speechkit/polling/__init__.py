"""When to ask again.

`poller` is what all tasks of a process wait through, one for each connection and event loop. It carries out what a pure
core without a clock decides: the `scheduler` plans the checks by a `schedule`, keeps them in a fair `queue`, and spends
what the `rate_limit` allows.
"""
