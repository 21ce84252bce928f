"""From answers to tables, and from tables into warehouses: ours and the alternatives.

    python benchmarks/tables.py [--json FILE] [--only flatten_large flatten_many load] [--rounds 7]

One v2 answer of 72,000 words, and 500 answers of 900, made from a seed. All start from the same bytes and end with
the same columns in memory, in the same order (start, channel, place in the answer). Before the measurement, all rows
are checked to be equal. `orjson.loads`, which only parses, is the baseline. Ours makes all four tables of
docs/tables.md, the others only the words. DuckDB and polars get the schema, DuckDB a file instead of bytes.

The contenders run in turns, and the best round of each counts. The time is CPU time, which a busy machine distorts
less than the clock's; that of several threads adds up. Peak memory is measured in a separate process: its growth
during the work, plus the input.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import subprocess
import sys
import tempfile
import time
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parent)]

if TYPE_CHECKING:
    from collections.abc import Callable

    import pyarrow as pa

SEED = 20261122
LARGE_WORDS, MANY, MANY_WORDS = 72_000, 500, 900
LETTERS = "оооааеееииннттссрввлкмдпуяыьгзбчйхжшюцщэф"
V2_TYPE = "type.googleapis.com/yandex.cloud.ai.stt.v2.LongRunningRecognitionResponse"
COLUMNS = ["operation_id", "channel", "word", "start_ms", "end_ms"]

Answers = list[bytes]


def answer(words: int, seed: int) -> bytes:
    """A finished v2 operation: a stereo call with utterances that overlap and are not sorted."""
    chance = random.Random(seed)
    lexicon = [
        "".join(chance.choices(LETTERS, k=chance.choice((1, 3, 5, 6, 7, 8, 9, 10, 11, 13)))) for _ in range(4000)
    ]
    clocks = [0, 0]
    chunks = []
    while words:
        channel = chance.randrange(2)
        spoken = []
        for _ in range(min(words, chance.randint(3, 25))):
            start = clocks[channel]
            end = start + chance.randint(4, 36) * 10
            clocks[channel] = end + chance.choice((0, 0, 10, 20, 40, 400))
            text = chance.choice(lexicon)
            spoken.append({"startTime": seconds(start), "endTime": seconds(end), "word": text, "confidence": 1})
        words -= len(spoken)
        text = " ".join(word["word"] for word in spoken).capitalize()
        alternative = {"words": spoken, "text": text, "confidence": 1}
        chunks.append({"alternatives": [alternative], "channelTag": str(channel + 1)})
    operation = {
        "done": True,
        "response": {"@type": V2_TYPE, "chunks": chunks},
        "id": f"e03{seed:017d}",
        "createdAt": "2026-11-22T10:00:00Z",
        "createdBy": "ajekbvv6h80cp2hle7rf",
        "modifiedAt": "2026-11-22T10:40:00Z",
    }
    return json.dumps(operation, ensure_ascii=False).encode()


def seconds(milliseconds: int) -> str:
    whole, rest = divmod(milliseconds, 1000)
    return f"{whole}.{rest:03d}s" if rest else f"{whole}s"


def large() -> Answers:
    return [answer(LARGE_WORDS, SEED)]


def many() -> Answers:
    return [answer(MANY_WORDS, SEED + number) for number in range(MANY)]


def json_normalize(answers: Answers, _: list[str]) -> Any:
    import pandas as pd

    frames = []
    for raw in answers:
        operation = json.loads(raw)
        frame = pd.json_normalize(
            operation["response"]["chunks"], record_path=["alternatives", "words"], meta=["channelTag"]
        )
        for name, column in (("start_ms", "startTime"), ("end_ms", "endTime")):
            frame[name] = (frame[column].str.rstrip("s").astype(float) * 1000).round().astype("int64")
        frame["operation_id"] = operation["id"]
        frame = frame.rename(columns={"channelTag": "channel"})[COLUMNS]
        frames.append(frame.sort_values(["start_ms", "channel"], kind="stable"))
    return pd.concat(frames, ignore_index=True)


def loops(answers: Answers, _: list[str]) -> Any:
    import pandas as pd

    frames = []
    for raw in answers:
        operation = json.loads(raw)
        rows = [
            (
                operation["id"],
                chunk["channelTag"],
                word["word"],
                round(float(word["startTime"][:-1]) * 1000),
                round(float(word["endTime"][:-1]) * 1000),
            )
            for chunk in operation["response"]["chunks"]
            for alternative in chunk["alternatives"]
            for word in alternative["words"]
        ]
        rows.sort(key=lambda row: (row[3], row[1]))
        frames.append(pd.DataFrame(rows, columns=COLUMNS))
    return pd.concat(frames, ignore_index=True)


def polars(answers: Answers, _: list[str]) -> Any:
    import polars as pl

    word = pl.Struct({"startTime": pl.String, "endTime": pl.String, "word": pl.String})
    alternative = pl.Struct({"words": pl.List(word)})
    chunk = pl.Struct({"alternatives": pl.List(alternative), "channelTag": pl.String})
    schema = {"id": pl.String, "response": pl.Struct({"chunks": pl.List(chunk)})}
    frames = []
    for raw in answers:
        frame = pl.read_json(BytesIO(raw), schema=schema).select(pl.col("id").alias("operation_id"), pl.col("response"))
        frame = frame.unnest("response").select("operation_id", "chunks").explode("chunks").unnest("chunks")
        frame = frame.explode("alternatives").unnest("alternatives")
        frame = frame.explode("words").unnest("words")
        milliseconds = {
            name: (pl.col(column).str.strip_suffix("s").cast(pl.Float64) * 1000).round().cast(pl.Int64)
            for name, column in (("start_ms", "startTime"), ("end_ms", "endTime"))
        }
        frame = frame.with_columns(**milliseconds).rename({"channelTag": "channel"}).select(COLUMNS)
        frames.append(frame.sort("start_ms", "channel", maintain_order=True))
    return pl.concat(frames)


def duckdb(_: Answers, files: list[str]) -> Any:
    import duckdb

    word = "STRUCT(startTime VARCHAR, endTime VARCHAR, word VARCHAR)"
    chunk = f"STRUCT(alternatives STRUCT(words {word}[])[], channelTag VARCHAR)"
    query = f"""
        WITH operations AS (
            SELECT id, file_number, response.chunks AS chunks
            FROM (SELECT *, row_number() OVER (ORDER BY filename) AS file_number
                  FROM read_json($files, columns = {{id: 'VARCHAR', response: 'STRUCT(chunks {chunk}[])'}},
                                 maximum_object_size = 1000000000, filename = true)) AS answers
        ), chunks AS (
            SELECT id, file_number, unnest(chunks) AS chunk, generate_subscripts(chunks, 1) AS chunk_number
            FROM operations
        ), words AS (
            SELECT id, file_number, chunk_number, chunk.channelTag AS channel,
                   unnest(chunk.alternatives[1].words) AS word,
                   generate_subscripts(chunk.alternatives[1].words, 1) AS word_number
            FROM chunks
        )
        SELECT id AS operation_id, channel, word.word AS word,
               CAST(round(CAST(rtrim(word.startTime, 's') AS DECIMAL(18, 9)) * 1000) AS BIGINT) AS start_ms,
               CAST(round(CAST(rtrim(word.endTime, 's') AS DECIMAL(18, 9)) * 1000) AS BIGINT) AS end_ms
        FROM words ORDER BY file_number, start_ms, channel, chunk_number, word_number
    """
    with duckdb.connect() as connection:
        return connection.sql(query, params={"files": files}).to_arrow_table()


def orjson_loads(answers: Answers, _: list[str]) -> None:
    import orjson

    for raw in answers:
        orjson.loads(raw)


def ours(answers: Answers, _: list[str]) -> Any:
    from airflow_speechkit.models import Answer
    from airflow_speechkit.results.flatten import flatten_many
    from airflow_speechkit.settings import ApiVersion

    # The ids are known from fetching the answers.
    named = [(Answer(f"e03{SEED + number:017d}", ApiVersion.V2, raw), None) for number, raw in enumerate(answers)]
    return flatten_many(named)


CONTENDERS: dict[str, Callable[[Answers, list[str]], Any]] = {
    "json_normalize": json_normalize,
    "loops": loops,
    "polars": polars,
    "duckdb": duckdb,
    "orjson.loads": orjson_loads,
    "ours": ours,
}


def as_arrow(result: Any) -> pa.Table:
    import pyarrow as pa

    from airflow_speechkit.results.schema import WORDS, Tables

    if isinstance(result, Tables):
        result = result.words
    elif hasattr(result, "to_arrow"):
        result = result.to_arrow()
    elif not isinstance(result, pa.Table):
        result = pa.Table.from_pandas(result, preserve_index=False)
    schema = pa.schema([WORDS.arrow.field(name).with_nullable(True) for name in COLUMNS])
    return result.select(COLUMNS).cast(schema).combine_chunks()


def save(answers: Answers, folder: Path) -> list[str]:
    files = [folder / f"{number:06d}.json" for number in range(len(answers))]
    for file, raw in zip(files, answers, strict=True):
        file.write_bytes(raw)
    return [str(file) for file in files]


def measure(answers: Answers, folder: Path, rounds: int) -> list[dict[str, Any]]:
    """Check that all results are equal, then time them in turns."""
    files = save(answers, folder)
    expected = as_arrow(ours(answers, files))
    for name, contender in CONTENDERS.items():
        result = contender(answers, files)
        if result is not None and not as_arrow(result).equals(expected):
            raise SystemExit(f"{name} gives other rows than ours")
    best = dict.fromkeys(CONTENDERS, float("inf"))
    for _ in range(rounds):
        for name, contender in CONTENDERS.items():
            gc.collect()
            begin = time.process_time()
            contender(answers, files)
            best[name] = min(best[name], time.process_time() - begin)
    size = sum(map(len, answers))
    return [
        {
            "name": name,
            "seconds": best[name],
            "peak_bytes": peak(name, folder) + size,
            "input_bytes": size,
            "words": expected.num_rows,
        }
        for name in CONTENDERS
    ]


def peak(name: str, folder: Path) -> int:
    """The growth in bytes of a separate process that does the work once."""
    run = subprocess.run(
        [sys.executable, __file__, "--peak", name, str(folder)], check=True, capture_output=True, text=True
    )
    return int(run.stdout)


def print_peak(name: str, folder: Path) -> None:
    contender = CONTENDERS[name]
    warm = [answer(50, SEED)]
    with tempfile.TemporaryDirectory() as small:
        # Load libraries and start thread pools before the measurement.
        contender(warm, save(warm, Path(small)))
    files = sorted(str(file) for file in folder.iterdir())
    answers = [Path(file).read_bytes() for file in files]
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    before = memory("VmRSS")
    result = contender(answers, files)
    print(memory("VmHWM") - before)
    del result


def memory(name: str) -> int:
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith(name))


def print_table(title: str, results: list[dict[str, Any]]) -> None:
    own = next(one["seconds"] for one in results if one["name"] == "ours")
    size, words = results[0]["input_bytes"], results[0]["words"]
    print(f"\n{title}: {size / 1e6:.1f} MB, {words:,} words")
    print(f"{'':<16}{'CPU ms':>10}{'MB/s':>9}{'words/s':>13}{'peak MB':>9}{'of input':>10}{'ours is':>13}")
    for one in results:
        spent = one["seconds"]
        quicker = "" if one["name"] == "ours" else f"{spent / own:.2f}x quicker"
        print(
            f"{one['name']:<16}{spent * 1000:>10.1f}{size / 1e6 / spent:>9.0f}{words / spent:>13,.0f}"
            f"{one['peak_bytes'] / 1e6:>9.0f}{one['peak_bytes'] / size:>9.1f}x{quicker:>15}"
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures into this file")
    parser.add_argument("--rounds", type=int, default=7, help="number of rounds (default: 7)")
    sections = ("flatten_large", "flatten_many", "load")
    parser.add_argument("--only", nargs="+", choices=sections, default=sections, help="run these sections only")
    parser.add_argument("--peak", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak:
        print_peak(arguments.peak[0], Path(arguments.peak[1]))
        return 0
    figures: dict[str, Any] = {}
    for section, make in (("flatten_large", large), ("flatten_many", many)):
        if section in arguments.only:
            with tempfile.TemporaryDirectory(prefix="speechkit-bench-") as folder:
                figures[section] = measure(make(), Path(folder), arguments.rounds)
            print_table(section, figures[section])
    if "load" in arguments.only:
        import load

        figures["load"] = load.run_load()
        print()
        load.print_table(figures["load"])
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
