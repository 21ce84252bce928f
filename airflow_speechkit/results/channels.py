"""What the channels of a recording say about how it was recorded."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa


def identical_channels(utterances: pa.Table) -> list[str]:
    """Return the recognitions all of whose channels say the same, word for word.

    Such a recording is mono that was stored as stereo: every utterance of it is in the tables twice.

    :param utterances: rows of the table `utterances`, each recognition's own in order
    """
    said: dict[str, dict[str, list[str]]] = {}
    columns = (utterances[name].to_pylist() for name in ("recognition_id", "channel", "alternative", "text"))
    for recognition_id, channel, alternative, text in zip(*columns, strict=True):
        if alternative == 0 and text:
            said.setdefault(recognition_id, {}).setdefault(channel, []).append(text)
    return [
        recognition_id
        for recognition_id, channels in said.items()
        if len(channels) > 1 and all(texts == next(iter(channels.values())) for texts in channels.values())
    ]
