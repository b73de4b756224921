# SPDX-License-Identifier: Apache-2.0
"""Nothing here is for pytest: these scripts are for a machine with a GPU."""

from __future__ import annotations

collect_ignore_glob = ["*.py"]
