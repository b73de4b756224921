# SPDX-License-Identifier: Apache-2.0
"""``pytest tests/integration/test_fuzz.py --hypothesis-profile=long`` draws 20,000 inputs a test."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("long", max_examples=20_000)
