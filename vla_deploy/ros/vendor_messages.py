# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Commands in messages of robots' vendors, whose packages are imported only where one is asked for.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla_deploy.core.outputs import INTERBOTIX_GROUP, INTERBOTIX_SINGLE, Output, OutputError

_TYPES = {
    INTERBOTIX_GROUP: ('interbotix_xs_msgs', 'JointGroupCommand'),
    INTERBOTIX_SINGLE: ('interbotix_xs_msgs', 'JointSingleCommand'),
}


class VendorMessage:
    """Makes the messages of one output; `kind` is their type."""

    def __init__(self, output: Output) -> None:
        """Import the vendor's package; raises OutputError where it is missing."""
        package, name = _TYPES[output.output_type]
        try:
            self.kind: Any = getattr(importlib.import_module(f'{package}.msg'), name)
        except ImportError:
            raise OutputError(
                f'output_types: {output.output_type!r} of {output.topic!r} needs the package '
                f'{package}, which is not installed: source a workspace that has it'
            ) from None
        self._name = output.name
        self._single = output.output_type == INTERBOTIX_SINGLE

    def fill(self, values: NDArray[np.float64]) -> Any:
        """Return a message that commands values [joints]."""
        commands = values.tolist()
        return self.kind(name=self._name, cmd=commands[0] if self._single else commands)
