"""Puts pip into the virtual environment that runs this file.

For Pythons without `ensurepip`, such as Debian's when python3-venv is not installed. Takes the
newest release from PyPI, or from the index that PIP_INDEX_URL names, and checks its SHA-256.
"""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import urljoin
from urllib.request import Request, urlopen

INDEX = os.environ.get("PIP_INDEX_URL", "https://pypi.org/simple").rstrip("/") + "/pip/"


def newest(files: list[dict]) -> dict:
    """The release with the highest version of which there is a wheel."""
    releases = [file for file in files if file["filename"].endswith("-none-any.whl")]
    numbered = [file for file in releases if version(file).replace(".", "").isdigit()]
    return max(numbered, key=lambda file: [int(part) for part in version(file).split(".")])


def version(file: dict) -> str:
    return file["filename"].split("-")[1]


def main() -> None:
    """Download the wheel and have it install itself."""
    accept = {"Accept": "application/vnd.pypi.simple.v1+json"}
    with urlopen(Request(INDEX, headers=accept)) as answer:
        file = newest(json.load(answer)["files"])
    with urlopen(urljoin(INDEX, file["url"])) as answer:
        content = answer.read()
    if hashlib.sha256(content).hexdigest() != file["hashes"]["sha256"]:
        sys.exit(f"{file['url']} is not what the index says: its SHA-256 differs")
    with tempfile.TemporaryDirectory() as directory:
        wheel = Path(directory, file["filename"])
        wheel.write_bytes(content)
        # A wheel is a zip file, which Python can run.
        command = [sys.executable, f"{wheel}/pip", "install", "--no-index", str(wheel)]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
