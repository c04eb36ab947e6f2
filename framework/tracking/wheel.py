"""Millstream's own wheel, made of the code that runs: no index has it.

The format: packaging.python.org, "Binary distribution format". Works for an installed Millstream
and for one that is developed in its sources.
"""

import base64
import hashlib
import zipfile
from importlib import metadata
from pathlib import Path

_OUR_PACKAGES = ("framework", "millstream", "solvers", "surrogates")
_TAGS = "Wheel-Version: 1.0\nGenerator: millstream\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
# The same code gives the same bytes: zip's earliest date.
_DATE = (1980, 1, 1, 0, 0, 0)


def write_wheel(folder: Path) -> Path:
    """Write millstream-VERSION-py3-none-any.whl into a folder; return its path. Raises OSError."""
    distribution = metadata.distribution("millstream")
    version = distribution.version
    info = f"millstream-{version}.dist-info"
    # In sources under development it has the older name.
    described = distribution.read_text("METADATA") or distribution.read_text("PKG-INFO") or ""
    contents = _our_files() | {
        f"{info}/METADATA": described.encode(),
        f"{info}/WHEEL": _TAGS.encode(),
        f"{info}/entry_points.txt": (distribution.read_text("entry_points.txt") or "").encode(),
    }
    record = "".join(
        f"{name},{_digest(content)},{len(content)}\n" for name, content in contents.items()
    )
    contents[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    path = folder / f"millstream-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for name, content in contents.items():
            entry = zipfile.ZipInfo(name, _DATE)
            entry.external_attr = 0o644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            wheel.writestr(entry, content)
    return path


def requirements(wheel: str) -> list[str]:
    """Return what the wheel at `wheel` needs to run as here, a line of requirements.txt each."""
    names = [
        requirement.split(";")[0]
        for requirement in metadata.requires("millstream") or []
        if "extra ==" not in requirement
    ]
    bare = sorted({name.strip().partition(" ")[0] for name in map(_without_limits, names)})
    # Of a local build, such as 2.13.0+cpu, indexes have the public version.
    pins = [f"{name}=={metadata.version(name).partition('+')[0]}" for name in bare]
    return [wheel, *pins]


def _without_limits(requirement: str) -> str:
    for sign in "[<>=!~ (":
        requirement = requirement.partition(sign)[0]
    return requirement


def _our_files() -> dict[str, bytes]:
    """Return the files of our packages: name in the wheel -> content."""
    # Beside this one: what an import finds may be a folder of the same name.
    root = Path(__file__).parents[2]
    contents = {}
    for package in _OUR_PACKAGES:
        files = [*(root / package).rglob("*.py"), root / package / "py.typed"]
        for path in sorted(file for file in files if file.is_file()):
            contents[str(path.relative_to(root))] = path.read_bytes()
    return contents


def _digest(content: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest())
    return "sha256=" + digest.rstrip(b"=").decode()
