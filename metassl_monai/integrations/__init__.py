# SPDX-License-Identifier: Apache-2.0
"""What other programs take: federated learning, MONAI Label, ONNX, 3D Slicer, ITK-SNAP, DICOM, Hugging Face.

Import the module that is needed: several of them need packages of an extra.
"""
