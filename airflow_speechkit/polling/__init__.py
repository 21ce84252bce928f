"""When to ask again.

`poller` is what a triggerer waits through, one for each connection and event loop, over a pure core that has no clock:
`dispatcher` decides whose turn it is, within a `budget`, by a `schedule` for what was `forecast`. In the poke and
reschedule modes, where no memory is shared, `blocking` takes its place.
"""
