"""Have a language model describe classes, as prompts.

Group: Ask a model

A model behind an OpenAI-compatible server is asked about each class, by a recipe: `cupl` wants sentences on how it
looks (Pratt et al., 2023), `description` features to look for (Menon and Vondrick, 2023), and a file what it says
itself: change one that `clipkit prompts show` prints. With -o FILE.json it writes a label file, class to prompts, which
`zeroshot --labels @FILE.json` and `eval` read; otherwise a record a class. Answers that cannot be used are counted.
What was answered is kept for --resume. The key is taken from CLIPKIT_API_KEY or OPENAI_API_KEY. Reads everything first.

Example:

    clipkit prompts generate --labels cats,dogs --server http://localhost:8000/v1 -o labels.json
    clipkit prompts generate --labels @classes.txt --kind description --server http://localhost:11434/v1 -o labels.json
    clipkit zeroshot photos/ --labels @labels.json
"""

from typing import Annotated

from typer import Option

from clipkit import pipeline
from clipkit.errors import ExitCode, UsageError
from clipkit.options import OutputOptions, ServerOptions, StreamOptions


def run(
    output: OutputOptions,
    server: ServerOptions,
    labels: Annotated[str, Option(metavar="A,B,...|@FILE", help="The classes.")],
    kind: Annotated[
        str, Option(metavar="NAME|FILE", help="What is asked: cupl, description, or a recipe of your own.")
    ] = "cupl",
    settings: Annotated[
        list[str] | None,
        Option("--set", metavar="NAME=VALUE", help="variants, temperature, top_p or max_tokens; may be repeated."),
    ] = None,
    seed: Annotated[int, Option(min=0, metavar="N", help="Of all that is random.")] = 0,
    quiet: Annotated[
        bool, Option("-q", "--quiet", help="No notices, no progress, and no summary unless classes failed.")
    ] = False,
) -> ExitCode:
    from clipkit.methods.parameters import parse_settings
    from clipkit.stages.generate_prompts import PROMPT_COLUMNS, GeneratePrompts, sampling
    from clipkit.stream.record import Record
    from clipkit.text.labels import parse_labels

    classes = parse_labels(labels)
    if classes.descriptions is not None:
        raise UsageError(f"--labels {labels}: these classes have descriptions already", "name the classes alone")
    options = server.given()
    config = {
        "labels": list(classes.names),
        "kind": kind,
        "params": sampling(parse_settings(settings or ())),
        "server_model": options.pop("server_model", None),
        "seed": seed,
        "as_labels": bool(output.out and output.out.endswith(".json")),
    }
    io = StreamOptions(**vars(output), quiet=quiet)
    asked = [Record({"id": name}, where=f"--labels: {name}") for name in classes.names]
    stage = GeneratePrompts(config, {"options": options})
    reads = {"--labels": [labels], "--kind": [kind]}
    return pipeline.stream(stage, io, columns=PROMPT_COLUMNS, records=asked, reads=reads)
