# SPDX-License-Identifier: Apache-2.0
"""Nothing here is for pytest: these scripts measure time, which no test does."""

from __future__ import annotations

collect_ignore_glob = ["*.py"]
