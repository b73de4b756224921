# SPDX-License-Identifier: Apache-2.0
"""Trainings side by side: their definition, their runs, and the page of results made from them."""
