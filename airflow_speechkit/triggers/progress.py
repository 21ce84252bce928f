"""What the logs of the sensor and of `SpeechKitRecognizeOperator` say about how far a task is."""


def ended_so_far(ended: int, *, failed: int, archived_before: int) -> str:
    """Return the numbers of operations that have ended, in words.

    :param failed: how many of these have no result
    :param archived_before: how many of these the archive held before the task began
    """
    return f"ended {ended:,}, failed {failed:,}, archived before {archived_before:,}"
