"""Where helpers of these tests lie."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # for `image`
sys.path.insert(0, str(Path(__file__).parents[1] / "service"))  # for `asking`
