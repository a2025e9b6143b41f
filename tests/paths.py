"""Where the tests find the repository's files; `SHARED` holds real data that may be absent."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
FIXTURES = ROOT / "tests" / "fixtures"
CONFIGS = ROOT / "configs"
SHARED = ROOT.parent / "shared"
