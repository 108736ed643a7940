# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""A bring-up description as a launch description; needs the launch package of ROS 2."""

from __future__ import annotations

from collections.abc import Sequence

from launch import LaunchContext, LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    ExecuteProcess,
    LogInfo,
    OpaqueFunction,
    RegisterEventHandler,
    Shutdown,
    TimerAction,
)
from launch.event_handlers import OnProcessIO
from launch.events.process import ProcessIO
from launch.launch_description_entity import LaunchDescriptionEntity

from vla_deploy.bringup import (
    READY_TIMEOUT_S,
    BringUpOptions,
    Process,
    bring_up,
    options_from_texts,
)
from vla_deploy.core.parameter import parameters_of
from vla_deploy.export.own_bundle import bundle_for


def launch_description(robot: str) -> LaunchDescription:
    """Return the launch description of a robot: its arguments and its processes."""
    declared = parameters_of(BringUpOptions)

    def start(context: LaunchContext) -> list[LaunchDescriptionEntity]:
        texts = {p.name: context.launch_configurations[p.name] for p in declared}
        options = options_from_texts(texts)
        bundle = bundle_for(robot, options.bundle) if options.inference else None
        return starting(bring_up(robot, options, bundle))

    arguments = [
        DeclareLaunchArgument(
            p.name,
            default_value=str(p.default).lower() if p.python_type is bool else str(p.default),
            description=p.description,
        )
        for p in declared
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=start)])


def starting(processes: Sequence[Process]) -> list[LaunchDescriptionEntity]:
    """Return what starts processes in their order, those behind one that is to become ready once
    it is; the launch ends when one of them ends, or is not ready in time."""
    if not processes:
        return []
    process, *others = processes
    action = ExecuteProcess(
        cmd=list(process.command),
        name=process.name,
        output='screen',
        additional_env=dict(process.environment),
        on_exit=Shutdown(reason=f'{process.name} ended'),
    )
    if not process.ready:
        return [action, *starting(others)]
    return [*_once_ready(process, action, others), action]


def _once_ready(
    process: Process, action: ExecuteProcess, others: Sequence[Process]
) -> list[LaunchDescriptionEntity]:
    """Return the handlers that start `others` when `process` has printed that it is ready."""
    printed: dict[str, str] = {'stdout': '', 'stderr': ''}  # pieces come cut anywhere

    def is_ready() -> bool:
        return any(process.ready in text for text in printed.values())

    def on_output(event: ProcessIO) -> list[LaunchDescriptionEntity]:
        if is_ready():
            return []
        printed['stdout' if event.from_stdout else 'stderr'] += event.text.decode(errors='replace')
        return starting(others) if is_ready() else []

    def on_time(_context: LaunchContext) -> list[LaunchDescriptionEntity]:
        why = f'{process.name} was not ready within {READY_TIMEOUT_S:g} s'
        return [] if is_ready() else [LogInfo(msg=why), Shutdown(reason=why)]

    return [
        RegisterEventHandler(
            OnProcessIO(target_action=action, on_stdout=on_output, on_stderr=on_output)
        ),
        TimerAction(period=READY_TIMEOUT_S, actions=[OpaqueFunction(function=on_time)]),
    ]
