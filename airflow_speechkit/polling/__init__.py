"""When to ask again: a pure schedule that learns, and the shared poller of a triggerer.

What others call::

    from airflow_speechkit.polling.waiting import Waiting, Finished, Gone, Unanswered, Ending
    from airflow_speechkit.polling.budget import CheckBudget
    from airflow_speechkit.polling.poller import Poller, shared_poller

    budget = CheckBudget.of("v2", checks_per_hour=None, checks_per_second=None, triggerers=1)   # None: the default

    poller = shared_poller(
        key,                    # Hashable: (connection id, api version); the running loop is added to it
        open_check,             # () -> async context manager that yields `check`; opened with the first waiter,
                                #   closed after the last one has left
        budget,                 # CheckBudget; the first caller's counts as long as the poller lives
        stats=None,             # .incr(name, count=1) .gauge(name, value) .timing(name, milliseconds)
    )
    # check: (operation_id: str) -> Awaitable[api.operation.Operation]; raises errors of airflow_speechkit.errors
    poller.count_request()      # one more request to the operations host that the poller didn't send (a cancel, a
                                # client's own retry): it counts

    async with poller.waiting(list_of_Waiting, log=logger, log_every_s=300.0) as endings:
        async for ending in endings:          # each operation once, as it ends; StopAsyncIteration after the last
            match ending:
                case Finished(operation_id, operation): ...   # operation.state DONE or FAILED, operation.raw: bytes
                case Gone(operation_id, error): ...           # 404
                case Unanswered(operation_id, error): ...     # polling itself failed, long and often
            # An answer of megabytes counts as being handled until the next one is asked for: only so many are held
            # at once. Archive it here, before the next round.

For the poke and reschedule modes (a worker each, no shared memory; pure functions; times in seconds since the epoch)::

    from airflow_speechkit.polling.blocking import BlockingAllowance, due, next_check, next_poke

    allowance = BlockingAllowance.of("v2", checks_per_hour=None, checks_per_second=None, side_by_side=4)
    due(waitings, since, now, allowance) -> list[Waiting]     # to be asked now; looked at last at `since` (None: never)
    next_poke(waitings_left, asked, now, allowance) -> float  # when to look again, `asked`: checks just made
    next_check(waiting, now, allowance) -> float              # the same for one operation
"""
