"""Find the name that captions use most for each class.

Group: Curate

Counts in how many captions each class's name and its synonyms are (whole words, also in the plural), and takes the most
frequent: models know a class best by the name that they read most (REAL-Prompt, Parashar et al., 2024). Synonyms are
WordNet's for the most common sense, or a file's. With -o FILE.json it writes a label file, class to prompts, which
`zeroshot --labels @FILE.json` reads; otherwise a record a class. Look at what was chosen: a word may mean other things
too. Reads everything first.

Example:

    clipkit concepts synonyms captions.parquet --labels @classes.txt
    clipkit concepts synonyms captions.parquet --labels @classes.txt -o labels.json
    clipkit zeroshot photos/ --labels @labels.json
"""

from typing import Annotated

from typer import Option

from clipkit import pipeline
from clipkit.errors import ExitCode, UsageError
from clipkit.options import StreamOptions


def run(
    io: StreamOptions,
    labels: Annotated[str, Option(metavar="A,B,...|@FILE", help="The classes.")],
    synonyms: Annotated[
        str | None, Option(metavar="FILE.json", help="Class -> [synonyms], instead of WordNet's.")
    ] = None,
    template: Annotated[
        list[str] | None,
        Option(
            metavar="TEXT|NAME",
            help="A prompt with {} for the name, or simple-7 or openai-80; may be repeated. "
            "Default: 'a photo of a {}.'",
        ),
    ] = None,
) -> ExitCode:
    from clipkit.methods.concepts.synonyms import read_classes, read_synonyms
    from clipkit.stages.synonyms import CHOICE_COLUMNS, Synonyms
    from clipkit.text.templates import resolve_templates

    classes = read_classes(labels)
    if classes.descriptions is not None:
        raise UsageError(f"--labels {labels}: these classes have descriptions already", "name the classes alone")
    config = {
        "labels": list(classes.names),
        "synonyms": read_synonyms(synonyms) if synonyms else None,
        "as_labels": bool(io.out and io.out.endswith(".json")),
    }
    if template:
        config["templates"] = resolve_templates(template)
    reads = {"--synonyms": [synonyms] if synonyms else []}
    return pipeline.stream(Synonyms(config), io, columns=CHOICE_COLUMNS, reads=reads)
