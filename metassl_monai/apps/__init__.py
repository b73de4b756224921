# SPDX-License-Identifier: Apache-2.0
"""What the ``metassl`` command does, one module a command, outside of a training."""
