"""Recordings with one field of a header changed: each is measured right, has no length, or is refused by our own error.

What is right is counted here anew, frame by frame and packet by packet, by code that shares nothing with the product's.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from functools import cache

import pytest

from airflow_speechkit.errors import RecordingError
from airflow_speechkit.recordings.audio.facts import AudioFacts, settle
from airflow_speechkit.recordings.audio.reading import read_audio
from airflow_speechkit.settings import ApiVersion, RecognitionSettings
from tests.fuzz.cases import Reached, cases
from tests.unit.recordings.sounds import InMemory, mp3, ogg, wav

V3 = RecognitionSettings(api_version=ApiVersion.V3)
ODD = (0, 1, 2, 3, 7, 255, 256, 0x7FFF, 0x8000, 0xFFFF, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF)


def number(chance: random.Random, before: int, size: int) -> int:
    """Return another number for a field: an odd one, or one near to what is there."""
    near = (
        before + 1,
        before - 1,
        before * 2,
        before // 2,
        before * 10,
        before // 10,
        before ^ 1 << chance.randrange(8 * size),
    )
    return chance.choice([*ODD, *near]) % (1 << 8 * size)


@dataclass(frozen=True)
class Mutant:
    """A recording with one thing changed.

    :param ms: how long it is; None where it contradicts itself in a way that nobody can settle
    :param taken: whether it must not be refused
    """

    data: bytes
    ms: float | None
    taken: bool = False


@dataclass(frozen=True)
class Field:
    """A field of a header: where it is, and how many bytes it has."""

    place: int
    size: int
    big: bool = False

    def change(self, data: bytearray, chance: random.Random) -> None:
        order = "big" if self.big else "little"
        before = int.from_bytes(data[self.place : self.place + self.size], order)
        after = number(chance, before, self.size)
        data[self.place : self.place + self.size] = after.to_bytes(self.size, order)


# MP3

RATES = {0: (11_025, 12_000, 8_000), 2: (22_050, 24_000, 16_000), 3: (44_100, 48_000, 32_000)}
KBITS = {
    3: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    2: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}


def mp3_frame(data: bytes, place: int) -> tuple[int, int, int] | None:
    """Return a frame's length in bytes, its samples and their rate."""
    if len(data) < place + 4 or data[place] != 255 or data[place + 1] >> 5 != 7 or data[place + 1] >> 1 & 3 != 1:
        return None
    version, bits, rates = data[place + 1] >> 3 & 3, data[place + 2] >> 4, data[place + 2] >> 2 & 3
    if version == 1 or bits in (0, 15) or rates == 3:
        return None
    rate, kbits = RATES[version][rates], KBITS[3 if version == 3 else 2][bits]
    samples = 1152 if version == 3 else 576
    return samples * 125 * kbits // rate + (data[place + 2] >> 1 & 1), samples, rate


def mp3_ms(data: bytes) -> float:
    """Return how long all frames are that other frames follow."""
    place, total = 0, Fraction()
    while place < len(data):
        frame = mp3_frame(data, place)
        follows = frame and (place + frame[0] >= len(data) - 300 or mp3_frame(data, place + frame[0]))
        if not frame or not follows:
            place += 1
            continue
        total += Fraction(frame[1] * 1000, frame[2])
        place += frame[0]
    return float(total)


UNCOUNTED = 3


@cache
def mp3s() -> tuple[tuple[bytes, int], ...]:
    """Return recordings, each with where its sound begins."""
    made = [
        mp3(rate=16_000, seconds=6, quality=0, bit_rate=None),
        mp3(rate=44_100, seconds=3, channels=2, bit_rate=64_000),
        mp3(rate=8_000, seconds=9),
        mp3(rate=22_050, seconds=4, write_xing="0"),
    ]
    assert len(made) - 1 == UNCOUNTED
    made.append(made[0] * 3)
    made.append(made[2] + made[1])
    found = []
    for data in made:
        start = 10 + (data[8] << 7 | data[9])
        assert mp3_frame(data, start)
        found.append((data, start))
    return tuple(found)


def mp3_fields(data: bytes, start: int) -> Iterator[Field]:
    yield from (Field(start + 1, 1), Field(start + 2, 1), Field(start + 3, 1), Field(6, 4, big=True), Field(5, 1))
    place = max(data.find(b"Xing", start, start + 60), data.find(b"Info", start, start + 60))
    if place > 0:
        # What it declares, time and again: the frames, the bytes, the flags, delay and padding, the checksum.
        yield from [Field(place + 8, 4, big=True), Field(place + 12, 4, big=True)] * 3
        yield from (Field(place + 4, 4, big=True), Field(place + 141, 3, big=True), Field(place + 154, 2, big=True))


APE = b"APETAGEX" + struct.pack("<IIII", 2000, 40, 1, 0xA0 << 24) + bytes(48)


def mutated_mp3(chance: random.Random) -> Mutant:
    data, start = chance.choice(mp3s())
    mutant = bytearray(data)
    how = chance.randrange(10)
    if how == 0:
        length = chance.choice([0, 9, 5_000, 60_000])
        tag = b"ID3\4\0\0" + bytes([0, length >> 14, length >> 7 & 127, length & 127]) + bytes(length)
        mutant = bytearray(tag * chance.randrange(1, 4) + bytes(chance.choice([0, 50_000])) + mutant)
    elif how == 1:
        mutant += chance.choice([b"TAG" + bytes(125), APE, b"ID3\4\0\0\0\0\x20\0" + bytes(4096)])
    elif how == 2:
        # A few frames, with nothing that counts them.
        data, start = mp3s()[UNCOUNTED]
        mutant = mutant_of_frames(data, start, chance.randrange(1, 8))
    elif how == 3:
        mutant = mutant[: chance.randrange(start, len(mutant))]
    else:
        chance.choice(list(mp3_fields(data, start))).change(mutant, chance)
    return Mutant(bytes(mutant), mp3_ms(bytes(mutant)), taken=how < 3)


def mutant_of_frames(data: bytes, start: int, count: int) -> bytearray:
    end = start
    for _ in range(count):
        frame = mp3_frame(data, end)
        assert frame
        end += frame[0]
    return bytearray(data[start:end])


# Ogg


def ogg_pages(data: bytes) -> list[bytearray]:
    pages, place = [], 0
    while place < len(data):
        end = place + 27 + data[place + 26]
        end += sum(data[place + 27 : end])
        pages.append(bytearray(data[place:end]))
        place = end
    return pages


OPUS_MS = [*[10, 20, 40, 60] * 3, *[10, 20] * 2, *[2.5, 5, 10, 20] * 4]


def ogg_ms(pages: list[bytearray]) -> float:
    """Return how long all packets are; no packet of these goes over two pages."""
    total, headers = 0.0, 0
    for page in pages:
        place = 27 + page[26]
        length = 0
        for segment in page[27:place]:
            length += segment
            if segment == 255:
                continue
            body, place, length = page[place : place + length], place + length, 0
            if body[:8] in (b"OpusHead", b"OpusTags"):
                headers += 1
                if body[:8] == b"OpusHead":
                    total -= struct.unpack_from("<H", body, 10)[0] / 48
                continue
            frames = (1, 2, 2, body[1] & 63)[body[0] & 3]
            total += OPUS_MS[body[0] >> 3] * frames
    return max(0.0, total)


@cache
def oggs() -> tuple[bytes, ...]:
    one, two, three = ogg(seconds=4), ogg(seconds=3, channels=2, rate=16_000), ogg(seconds=40, bit_rate=64_000)
    return one, two, three, one + two, one * 3, three + one + three


@cache
def long_ogg() -> tuple[bytes, ...]:
    """Return recordings of over a megabyte: one stream, and two that are joined and have equal serials."""
    pages = ogg_pages(ogg(seconds=6, bit_rate=64_000))
    (granule,) = struct.unpack_from("<q", pages[3], 6)
    whole = pages[:4]
    for second in range(1, 201):
        page = bytearray(pages[3])
        struct.pack_into("<q", page, 6, granule + second * 48_000)
        whole.append(page)
    struct.pack_into("<q", pages[-1], 6, granule + 200 * 48_000 + 480)
    for sequence, page in enumerate([*whole, pages[-1]]):
        struct.pack_into("<II", page, 14, 7, sequence)
    one = b"".join([*whole, pages[-1]])
    return one, one + one, one + one


def mutated_ogg(chance: random.Random) -> Mutant:
    data = chance.choice(long_ogg() if chance.randrange(4) == 0 else oggs())
    pages = ogg_pages(data)
    page = chance.choice([pages[0], pages[2], pages[-1], pages[-2], chance.choice(pages)])
    how = chance.randrange(10)
    if how < 5:
        Field(6, 8).change(page, chance)
    elif how == 5:
        granule = chance.choice([0, 0, -1, 48_000])
        for one in pages:
            struct.pack_into("<q", one, 6, granule)
    elif how == 6:
        serial = chance.randrange(3)
        for one in pages:
            struct.pack_into("<I", one, 14, serial)
    elif how == 7:
        for one in pages:
            one[5] &= ~4
    elif how == 8:
        # The pre-skip.
        Field(28 + 10, 2).change(pages[0], chance)
    else:
        Field(18, 4).change(page, chance)
    return Mutant(b"".join(pages), ogg_ms(pages), taken=how != 8)


# WAV


@cache
def wavs() -> tuple[bytes, ...]:
    return wav(8_000, seconds=3), wav(16_000, 2, seconds=2), wav(48_000, 1, seconds=1)


def mutated_wav(chance: random.Random) -> Mutant:
    mutant = bytearray(chance.choice(wavs()))
    data = mutant.index(b"data")
    there = len(mutant) - data - 8
    how = chance.randrange(6)
    taken = False
    ms: float | None = None
    if how == 0:
        # Another chunk behind the samples, or something that is none.
        behind = chance.choice([b"LIST" + struct.pack("<I", 9) + bytes(9), bytes(500), b"\1\2" * 40_000, bytes(mutant)])
        ms = wav_ms(mutant, there) if behind[:4] == b"LIST" else None
        mutant += behind
        taken = True
    elif how == 1:
        extra = chance.choice([1, 8, 36, 44, 1000])
        struct.pack_into("<I", mutant, data + 4, there + extra)
        ms, taken = wav_ms(mutant, there), True
    elif how == 2:
        Field(data + 4, 4).change(mutant, chance)
        declared = struct.unpack_from("<I", mutant, data + 4)[0]
        if declared == 0 or declared >= there - 1:
            ms = wav_ms(mutant, there)
    elif how == 3:
        # A rate that no sound has, and what follows from it.
        channels, rate = struct.unpack_from("<H", mutant, 22)[0], chance.choice([1, 100, 2**20, 2**29, 2**32 - 1])
        struct.pack_into("<II", mutant, 24, rate, rate * 2 * channels % 2**32)
    else:
        # One of the rate, the channels and what follows from them contradicts the others.
        before = bytes(mutant)
        Field(*chance.choice([(22, 2), (24, 4), (24, 4), (28, 4), (32, 2)])).change(mutant, chance)
        if mutant == before or mutant[28:34] in (bytes(4) + before[32:34], before[28:32] + bytes(2)):
            ms = wav_ms(mutant, there)
    return Mutant(bytes(mutant), ms, taken)


def wav_ms(data: bytes, length: int) -> float:
    channels, rate = struct.unpack_from("<HI", data, 22)
    return float(length * 1000 / (2 * channels * rate))


#: How each kind is mutated, in how many cases, and how far off a length may be, in ms.
KINDS: dict[str, tuple[Callable[[random.Random], Mutant], int, float]] = {
    # A decoder drops the encoder's delay and padding, and a frame that is cut off.
    "mp3": (mutated_mp3, 150, 420),
    # The last page's count may take almost all of it off.
    "ogg": (mutated_ogg, 100, 65),
    "wav": (mutated_wav, 600, 2),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_changed_header_gives_the_right_length_or_none_or_our_own_error(kind: str) -> None:
    mutate, count, tolerance_ms = KINDS[kind]
    reached = Reached()
    for case in cases(f"audio-{kind}", count):
        with case:
            mutant = mutate(case.chance)
            facts = facts_or_refusal(mutant, exact=case.chance.randrange(2) == 0)
            reached.count(facts is not None)
            if facts is None:
                continue
            assert facts.channels > 0
            assert facts.sample_rate_hertz > 0
            if facts.duration_ms is None:
                assert facts.longest_ms is not None
                assert facts.longest_ms >= (mutant.ms or 0) - tolerance_ms
            else:
                assert mutant.ms is not None, facts
                assert abs(facts.duration_ms - mutant.ms) <= tolerance_ms, (facts, mutant.ms)
    reached.check()


def facts_or_refusal(mutant: Mutant, *, exact: bool) -> AudioFacts | None:
    try:
        facts = read_audio(InMemory(mutant.data), len(mutant.data), V3, exact=exact)
    except RecordingError:
        assert not mutant.taken
        return None
    with suppress(RecordingError):
        settle(V3, facts)
    return facts
