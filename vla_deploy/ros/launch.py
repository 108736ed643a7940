# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""A bring-up description as a launch description; needs the launch package of ROS 2."""

from __future__ import annotations

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, ExecuteProcess, OpaqueFunction, Shutdown
from launch.launch_description_entity import LaunchDescriptionEntity

from vla_deploy.bringup import BringUpOptions, bring_up, options_from_texts
from vla_deploy.core.parameter import parameters_of
from vla_deploy.export.own_bundle import bundle_for


def launch_description(robot: str) -> LaunchDescription:
    """Return the launch description of a robot: its arguments and its processes."""
    declared = parameters_of(BringUpOptions)

    def start(context: LaunchContext) -> list[LaunchDescriptionEntity]:
        texts = {p.name: context.launch_configurations[p.name] for p in declared}
        options = options_from_texts(texts)
        bundle = bundle_for(robot, options.bundle) if options.inference else None
        return [
            ExecuteProcess(
                cmd=list(process.command),
                name=process.name,
                output='screen',
                additional_env=dict(process.environment),
                on_exit=Shutdown(reason=f'{process.name} ended'),
            )
            for process in bring_up(robot, options, bundle)
        ]

    arguments = [
        DeclareLaunchArgument(
            p.name,
            default_value=str(p.default).lower() if p.python_type is bool else str(p.default),
            description=p.description,
        )
        for p in declared
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=start)])
