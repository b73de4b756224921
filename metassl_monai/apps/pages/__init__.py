# SPDX-License-Identifier: Apache-2.0
"""The parts of the page that ``metassl report`` writes."""
