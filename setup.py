"""Where the packages lie: commands/ is installed as clipkit.commands, so that only clipkit/ lands in site-packages."""

from setuptools import find_namespace_packages, setup

setup(
    packages=[*find_namespace_packages(include=["clipkit", "clipkit.*"]), "clipkit.commands"],
    package_dir={"clipkit.commands": "commands"},
)
