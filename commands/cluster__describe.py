"""Name clusters by concepts; show typical and odd members.

Group: Curate

Takes the records that `clipkit cluster` wrote, and its centroids. Writes one record a cluster, largest first: the
concepts that it is nearer to than the other clusters are, the members nearest its centre and those farthest from it.
The model is that of the centroids; no image is opened. Reads everything first.

Example:

    clipkit cluster photos/ --k 24 --save-centroids centroids.safetensors -o clustered.jsonl
    clipkit cluster describe clustered.jsonl --centroids centroids.safetensors --concepts cat,dog,'red bus'
    clipkit cluster describe clustered.jsonl --centroids centroids.safetensors --concepts @nouns.txt -o clusters.jsonl
"""

from typing import Annotated

from typer import Option

from clipkit import config, pipeline
from clipkit.errors import ExitCode
from clipkit.options import ImageOptions, ModelOptions, StreamOptions


def run(
    io: StreamOptions,
    model: ModelOptions,
    centroids: Annotated[str, Option(metavar="FILE", help="What clipkit cluster --save-centroids wrote.")],
    concepts: Annotated[str, Option(metavar="A,B,...|@FILE", help="What clusters may be about.")],
    template: Annotated[
        list[str] | None,
        Option(
            metavar="TEXT|NAME", help="A prompt with {} for the concept, or simple-7 or openai-80; may be repeated."
        ),
    ] = None,
    top: Annotated[int, Option(min=1, metavar="N", help="Names listed of each cluster, best first.")] = 3,
    members: Annotated[int, Option(min=1, metavar="N", help="Typical members listed of each, and odd ones.")] = 5,
) -> ExitCode:
    from clipkit.stages.describe import Describe
    from clipkit.stream.table import Column
    from clipkit.text.labels import parse_labels
    from clipkit.text.templates import resolve_templates

    stage = Describe(
        {
            "model": model.name if config.setting("model", model.model).chosen else None,
            "device": model.device_name,
            "precision": model.precision or "auto",
            "batch_size": model.batch_size,
            "centroids": centroids,
            "concepts": parse_labels(concepts, "--concepts").to_json(),
            "templates": resolve_templates(template),
            "top": top,
            "members": members,
        },
        pipeline.runtime(io, ImageOptions(), model),
    )
    columns = (
        Column("cluster", 7, lambda r: str(r.id), right=True),
        Column("size", 9, lambda r: f"{r['size']:,}", right=True),
        Column("names", 40, lambda r: ", ".join(f"{name} {score:.2f}" for name, score in r["names"])),
        Column("typical", 28, lambda r: _shown(r["typical"][0])),
        Column("odd", 28, lambda r: _shown(r["odd"][0]) if r["odd"] else ""),
    )
    return pipeline.stream(stage, io, columns=columns, reads={"--centroids": [centroids]})


def _shown(member: dict[str, str]) -> str:
    """What a person knows a member by."""
    return member.get("text") or member.get("id") or member.get("image") or ""
