"""Print the script that lets a shell complete clipkit's words.

Group: About

bash: put the first line below into ~/.bashrc. zsh: write the script to a file _clipkit in a folder of $fpath.
fish: write it to ~/.config/fish/completions/clipkit.fish.

Example:

    source <(clipkit completion bash)
    clipkit completion zsh > ~/.zfunc/_clipkit
    clipkit completion fish > ~/.config/fish/completions/clipkit.fish
"""

from typing import Annotated, Literal

import typer

from clipkit.completion import SCRIPTS


def run(shell: Annotated[Literal["bash", "zsh", "fish"], typer.Argument(help="Whose script.")]) -> None:
    print(SCRIPTS[shell], end="")
