"""The names of LeRobotDataset v3.0 (parquet + mp4) that the writer and the reader share.

meta/info.json                                 features, rates, totals
    meta/stats.json                                mean, std, min, max, quantiles per feature
    meta/tasks.parquet                             task text -> task_index
    meta/episodes/chunk-000/file-000.parquet       one row per episode: length, tasks, where its frames are
    data/chunk-000/file-000.parquet                one row per frame
    videos/{key}/chunk-000/file-000.mp4            many episodes per file, one file name per row of meta/episodes
"""

from pathlib import Path

VERSION = "v3.0"
INFO, STATS, TASKS = "meta/info.json", "meta/stats.json", "meta/tasks.parquet"
NOTES = "meta/engram.json"  # ours: provenance; other readers pass over it
FILE = "chunk-{chunk_index:03d}/file-{file_index:03d}"
EPISODES = f"meta/episodes/{FILE}.parquet"
DATA = f"data/{FILE}.parquet"
VIDEO = f"videos/{{video_key}}/{FILE}.mp4"

CAMERA = "observation.images."
STATE, ACTION, PREVIOUS = "observation.state", "action", "observation.previous_action"
COLUMNS = {
    "timestamp": "float32",
    "frame_index": "int64",
    "episode_index": "int64",
    "index": "int64",
    "task_index": "int64",
}


class DataError(ValueError):
    """A data set is not what it should be: names the file, what was expected, what was found and what to do."""

    def __init__(self, path: Path | str, expected: str, found: str, do: str):
        super().__init__(f"{path}: expected {expected}, found {found}; {do}")
