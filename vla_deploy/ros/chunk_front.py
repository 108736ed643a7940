# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The service GetActionChunk: one chunk on demand, verified as the guard would, not executed."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from rclpy.callback_groups import ReentrantCallbackGroup

from vla_deploy.core.guard_config import GuardConfig
from vla_deploy.core.limits import JointLimits
from vla_deploy.core.schedule import SessionBook
from vla_deploy.core.verify import VerifyState, verify_chunk
from vla_deploy.core.violation import Violation
from vla_deploy.pipeline import ObservationError
from vla_deploy.pipeline.assembly import StreamError
from vla_deploy.pipeline.observation import PromptError
from vla_deploy.pipeline.session import InstructionError
from vla_deploy.pipeline.strategy import standalone
from vla_deploy.ros.apart import wait_for
from vla_deploy.ros.chunk_loop import ChunkLoop, RefusedError
from vla_deploy.ros.chunk_maker import ChunkMaker, Made
from vla_deploy.ros.chunk_messages import message_to_chunk
from vla_deploy.ros.guard_messages import violation_message
from vla_deploy.ros.guard_rules import GuardRules
from vla_deploy.ros.lifecycle import ManagedNode
from vla_deploy.ros.observation_streams import ObservationStreams
from vla_deploy_msgs.msg import ActionChunk
from vla_deploy_msgs.srv import GetActionChunk

Response = GetActionChunk.Response
NO_LIMITS = "no chunk is given without limits: set parameters 'urdf_path' and 'limits_path'"
CEASED = 'the node ceased to serve while the chunk was computed'


class Serving(Protocol):
    """What the front needs of its node while that is configured."""

    loop: ChunkLoop | None
    maker: ChunkMaker | None
    streams: ObservationStreams | None
    limits: JointLimits | None
    rules: GuardRules | None


@dataclass(frozen=True)
class _Judge:
    """What a chunk is judged by."""

    streams: ObservationStreams
    limits: JointLimits
    config: GuardConfig

    def violations(
        self, msg: ActionChunk, now_ns: int, control_mode: str
    ) -> tuple[Violation, ...]:
        """Judge a chunk as one that would begin now, at the newest joint state."""
        # A chunk beyond a limit is not given at all: nobody stands behind it who could clamp it.
        rules = replace(self.config, mode='reject', control_mode=control_mode)
        stamp_ns, position = self.streams.newest_positions(self.limits.names)
        state = VerifyState(now_ns, now_ns, SessionBook(), None, position, stamp_ns)
        return verify_chunk(message_to_chunk(msg), state, self.limits, rules)[1].violations


class ChunkFront:
    """Answers in every lifecycle state: with an error while inactive."""

    def __init__(self, node: ManagedNode, serving: Serving, now_ns: Callable[[], int]) -> None:
        self._node, self._serving, self._now_ns = node, serving, now_ns
        group = ReentrantCallbackGroup()
        node.create_service(
            GetActionChunk, 'get_action_chunk', self._on_request, callback_group=group
        )

    async def _on_request(self, request: GetActionChunk.Request, response: Response) -> Response:
        # Taken once: a cleanup while the chunk is computed takes them from the node.
        serving = self._serving
        loop, maker, streams = serving.loop, serving.maker, serving.streams
        limits, rules = serving.limits, serving.rules
        if not self._node.is_active or loop is None or maker is None or streams is None:
            return _refuse(response, Response.ERROR_INACTIVE, 'the node is not active')
        if limits is None or rules is None:
            return _refuse(response, Response.ERROR_VERIFICATION, NO_LIMITS)
        try:
            loop.check_instruction(request.instruction)
            computed = loop.compute(
                request.instruction, request.noise_seed if request.use_noise_seed else None
            )
        except InstructionError as error:
            return _refuse(response, Response.ERROR_INSTRUCTION, str(error))
        except StreamError as error:
            return _refuse(response, Response.ERROR_OBSERVATION, str(error))
        except RefusedError as error:
            return _refuse(response, Response.ERROR_POLICY, str(error))
        await wait_for(self._node, computed)
        if computed.cancelled() or not self._node.is_active or serving.loop is not loop:
            return _refuse(response, Response.ERROR_INACTIVE, CEASED)
        error = computed.exception()
        if isinstance(error, PromptError):
            return _refuse(response, Response.ERROR_INSTRUCTION, str(error))
        if isinstance(error, ObservationError):
            return _refuse(response, Response.ERROR_OBSERVATION, str(error))
        if error is not None:
            return _refuse(response, Response.ERROR_POLICY, f'inference failed: {error}')
        judge = _Judge(streams, limits, rules.config)
        return self._verified(computed.result(), maker, judge, response)

    def _verified(
        self, made: Made, maker: ChunkMaker, judge: _Judge, response: Response
    ) -> Response:
        now_ns = self._now_ns()
        contract = maker.contract
        offset_s = contract.action.first_sample_offset_steps * (contract.period_s or 0.0)
        placed = standalone(made.chunk.actions, now_ns + round(offset_s * 1e9))
        msg = maker.message(made, placed, uuid.uuid4().hex, 0, now_ns)
        violations = judge.violations(msg, now_ns, contract.action.control_mode)
        response.report = [violation_message(violation, now_ns, 0) for violation in violations]
        if violations:
            return _refuse(response, Response.ERROR_VERIFICATION, violations[0].message)
        response.chunk = msg
        return response


def _refuse(response: Response, code: int, message: str) -> Response:
    response.error_code, response.error_msg = code, message
    return response
