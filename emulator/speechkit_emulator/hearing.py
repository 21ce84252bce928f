"""Speech recognition in a worker process: pocketsphinx with its English model."""

from __future__ import annotations

import functools
import multiprocessing
import os
import signal
import threading
from typing import Any

from speechkit_emulator.audio import MODEL_RATE, channels_of
from speechkit_emulator.transcript import Utterance, Word, capitalised

#: The model's frames are 10 ms long.
_FRAME_MS = 10


def start_worker() -> None:
    """Prepare a worker process: it ends when the emulator ends, in whatever way."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os._exit(0)

    threading.Thread(target=watch, name="watch-parent", daemon=True).start()
    # On few cores, the emulator's answers take precedence over recognition.
    os.nice(5)


@functools.cache
def _decoder() -> Any:
    from pocketsphinx import Decoder

    return Decoder(loglevel="FATAL")


def warm_up() -> int:
    """Load the model; return the worker's process id."""
    _decoder()
    return os.getpid()


def hear(content: bytes, encoding: str, sample_rate: int, channels: int | None) -> list[Utterance]:
    """Recognise a recording, channel by channel.

    :param sample_rate: of LINEAR16_PCM, in hertz
    :param channels: of LINEAR16_PCM
    :raises UndecodableError: if the recording can't be decoded
    """
    return [
        utterance
        for channel, pcm in enumerate(channels_of(content, encoding, sample_rate, channels))
        for utterance in _channel(pcm, channel)
    ]


def _channel(pcm: bytes, channel: int) -> list[Utterance]:
    decoder = _decoder()
    utterances = []
    for start_ms, speech in _speech(pcm):
        # The decoder adapts to the voice. Without this reset, results would depend on earlier recordings.
        decoder.reinit_feat()
        decoder.start_utt()
        decoder.process_raw(speech, full_utt=True)
        decoder.end_utt()
        words = tuple(
            Word(
                segment.word.partition("(")[0],
                start_ms + segment.start_frame * _FRAME_MS,
                start_ms + (segment.end_frame + 1) * _FRAME_MS,
            )
            for segment in decoder.seg() or ()
            if segment.word[0] not in "<["
        )
        if words:
            text = " ".join(word.word for word in words)
            utterances.append(Utterance(channel, words, text, capitalised(text), words[0].start_ms, words[-1].end_ms))
    return utterances


def _speech(pcm: bytes) -> list[tuple[int, bytes]]:
    """The speech between pauses, each part with its start in milliseconds."""
    from pocketsphinx import Endpointer

    endpointer = Endpointer(sample_rate=MODEL_RATE)
    size = endpointer.frame_bytes
    stretches: list[tuple[int, bytes]] = []
    current = bytearray()
    start_ms = 0
    for at in range(0, len(pcm), size):
        frame = pcm[at : at + size]
        last = at + size >= len(pcm)
        was_speaking = bool(endpointer.in_speech)
        speech = endpointer.end_stream(frame) if last else endpointer.process(frame)
        if speech is None:
            continue
        if not was_speaking and not current:
            start_ms = round(endpointer.speech_start * 1000)
        current += speech
        if last or not endpointer.in_speech:
            stretches.append((start_ms, bytes(current)))
            current.clear()
    if current:
        stretches.append((start_ms, bytes(current)))
    return stretches
