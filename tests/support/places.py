"""Where the tests find what the repository holds."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "configs"
EXAMPLES = ROOT / "examples"
QUICKSTART = CONFIGS / "quickstart.yaml"
SUPPORT = ROOT / "tests" / "support"
# What the version before this one wrote: two runs, two stores and an index.
OLDER_DATA = ROOT / "tests" / "data" / "version-1.tar.gz"
# Reference data that a checkout may come without; tests that need them are skipped then.
REFERENCES = ROOT.parent / "shared" / "data"
