# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The file of weights beside graphs: written one tensor at a time, each content once."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, external_data_helper
from onnxscript import ir

# Smaller tensors stay inside the graph, where shape inference can read them.
INLINE_BYTES = 1024
# Large tensors begin at a page, so that a runtime can map them without a copy.
ALIGNMENT_BYTES = 4096


class WeightStore:
    """Moves the large tensors of graphs into one file, each content once."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file = file
        self._file_path = path
        self._offsets: dict[bytes, int] = {}

    def move_out(self, model: ir.Model) -> None:
        """Replace the graph's large initializers by references into the file, one at a time."""
        for value in model.graph.initializers.values():
            tensor = value.const_value
            if tensor is None or tensor.nbytes < INLINE_BYTES:
                continue
            value.const_value = ir.ExternalTensor(
                self.file_name,
                self.append(np.ascontiguousarray(tensor.numpy()).reshape(-1).view(np.uint8)),
                tensor.nbytes,
                tensor.dtype,
                shape=tensor.shape,
                name=value.name,
                base_dir=self._file_path.parent,
            )

    @property
    def file_name(self) -> str:
        """Name of the file, which graphs refer to."""
        return self._file_path.name

    def append(self, content: NDArray[np.uint8]) -> int:
        """Return the place of a tensor's bytes, which are written unless they are there."""
        digest = hashlib.sha256(content.data).digest()
        if digest not in self._offsets:
            self._file.write(b'\0' * (-self._file.tell() % ALIGNMENT_BYTES))
            self._offsets[digest] = self._file.tell()
            self._file.write(content.data)
        return self._offsets[digest]

    def reference(self, name: str, data_type: int, content: NDArray[Any]) -> TensorProto:
        """Write a tensor and return what a graph holds of it.

        `content` has the tensor's shape and a dtype of the width of `data_type`, one of ONNX.
        """
        made = TensorProto(name=name, data_type=data_type, dims=content.shape)
        made.data_location = TensorProto.EXTERNAL
        offset = self.append(np.ascontiguousarray(content).reshape(-1).view(np.uint8))
        for key, value in (
            ('location', self.file_name), ('offset', offset), ('length', content.nbytes)
        ):
            made.external_data.add(key=key, value=str(value))
        return made


def mapped_values(tensor: TensorProto, folder: Path) -> NDArray[np.float32]:
    """Return a float32 tensor that lies in a file of weights, mapped and not read yet."""
    place = external_data_helper.ExternalDataInfo(tensor)
    return np.memmap(
        folder / place.location, np.float32, 'r', place.offset, tuple(tensor.dims)
    )
