"""Put sources together as records.

Group: Records

Records come out byte for byte as they went in; what is no record yet (a folder, a csv, a shard) becomes one. Streams.

Example:

    clipkit cat a.jsonl b.jsonl.gz 'shards/{00..41}.tar' -o all.jsonl.zst
    clipkit cat photos.csv --map image=filepath,text=title | clipkit zeroshot --labels @labels.txt
"""

from clipkit import pipeline
from clipkit.errors import ExitCode
from clipkit.options import StreamOptions


def run(io: StreamOptions) -> ExitCode:
    from clipkit.stages.select import RECORD_COLUMNS, Cat

    return pipeline.stream(Cat({}), io, columns=RECORD_COLUMNS)
