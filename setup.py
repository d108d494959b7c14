"""Where the packages lie: commands/ and samples/ are installed as parts of clipkit, so that only that lands in
site-packages."""

from setuptools import find_namespace_packages, setup

setup(
    packages=[*find_namespace_packages(include=["clipkit", "clipkit.*"]), "clipkit.commands", "clipkit.samples"],
    package_dir={"clipkit.commands": "commands", "clipkit.samples": "samples"},
)
