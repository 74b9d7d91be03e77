"""Some of these tests share requests and stampedes with the benchmarks, which are programs of the repository."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))
