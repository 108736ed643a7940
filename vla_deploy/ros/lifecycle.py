# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""What the lifecycle nodes share: checked parameters, autostart, one-line errors, a clean end."""

from __future__ import annotations

import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import rclpy
from lifecycle_msgs.msg import State as LifecycleStateMsg
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.publisher import Publisher
from rclpy.service import Service
from rclpy.signals import SignalHandlerOptions
from rclpy.subscription import Subscription

from vla_deploy.core.parameter import ParameterError
from vla_deploy.ros.command_line import wrong_words
from vla_deploy.ros.known_parameters import LifecycleConfig
from vla_deploy.ros.parameters import declare_parameters, parameters_text, read_config
from vla_deploy.ros.transport import IMAGES, use_profile

T = TypeVar('T')

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
_LAST_SPINS = 10


class ConfigureError(Exception):
    """Why a node cannot be configured: one line that names the file, key, joint or stream."""


class ManagedNode(LifecycleNode):
    """A lifecycle node whose configuration is checked before anything else happens.

    Subclasses give `configure`, `activate`, `deactivate` and `cleanup`. Whatever `configure` raises
    as one of `expected_errors` becomes one log line and FAILURE.
    """

    expected_errors: tuple[type[Exception], ...] = (ConfigureError, ParameterError)

    def __init__(self, name: str, *config_types: type, **kwargs: Any) -> None:
        super().__init__(name, enable_communication_interface=True, **kwargs)
        declare_parameters(self, LifecycleConfig, *config_types)
        self.owned: list[Any] = []  # what `configure` put into the graph
        self.configure_error = ''
        self.exit_code: int | None = None
        self._autostart_timer: Any = None
        lifecycle = read_config(self, LifecycleConfig)
        if lifecycle.autostart:
            self._autostart_deadline_ns = self._steady_ns() + int(
                lifecycle.autostart_timeout_s * 1e9
            )
            self._autostart_timer = self.create_timer(
                0.05, self._autostart, clock=rclpy.clock.Clock(clock_type=_STEADY)
            )

    # -- what a node supplies -----------------------------------------------------------------

    def waiting_for(self) -> str:
        """Return what configuring still needs, in words; empty when it can begin."""
        return ''

    def configure(self) -> None:
        """Load and check everything; raise ConfigureError with one line."""

    def activate(self) -> None:
        """Begin to serve."""

    def deactivate(self) -> None:
        """Come to a planned stop."""

    def cleanup(self) -> None:
        """Give back what `configure` made; must also work after a configure that failed."""

    def publish_status(self) -> None:
        """Publish the latched status; called after every transition."""

    def destroy_owned(self) -> None:
        """Take out of the graph what `configure` put there."""
        for owned in self.owned:
            if isinstance(owned, Publisher):
                self.destroy_publisher(owned)
            elif isinstance(owned, Subscription):
                self.destroy_subscription(owned)
            elif isinstance(owned, Service):
                self.destroy_service(owned)
            else:
                self.destroy_timer(owned)
        self.owned = []

    # -- transitions --------------------------------------------------------------------------

    @property
    def lifecycle_state(self) -> int:
        """Return the id of the present lifecycle state, as in lifecycle_msgs/State."""
        return int(self._state_machine.current_state[0])

    @property
    def is_active(self) -> bool:
        """Tell whether the node is active."""
        return self.lifecycle_state == LifecycleStateMsg.PRIMARY_STATE_ACTIVE

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.configure_error = ''
        try:
            self.configure()
        except self.expected_errors as error:
            self.configure_error = ' '.join(str(error).split())
            self.get_logger().error(f'configure failed: {self.configure_error}')
            self.cleanup()
            return TransitionCallbackReturn.FAILURE
        except Exception:
            self._tell_unexpected('configure')
            self.cleanup()  # rclpy goes back to unconfigured, where nothing may be left
            raise
        return TransitionCallbackReturn.SUCCESS

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            self.activate()
        except self.expected_errors as error:
            self.get_logger().error(f'activate failed: {" ".join(str(error).split())}')
            return TransitionCallbackReturn.FAILURE
        except Exception:
            self._tell_unexpected('activate')
            raise
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.deactivate()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.cleanup()
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        if state.state_id == LifecycleStateMsg.PRIMARY_STATE_ACTIVE:
            self.deactivate()
        self.cleanup()
        return TransitionCallbackReturn.SUCCESS

    def _tell_unexpected(self, transition: str) -> None:
        """Log a fault of the program itself: rclpy turns it into a state and drops the text."""
        self.get_logger().fatal(f'{transition} failed: {traceback.format_exc()}')

    def _autostart(self) -> None:
        missing = self.waiting_for()
        if missing and self._steady_ns() < self._autostart_deadline_ns:
            return
        self.destroy_timer(self._autostart_timer)
        done = TransitionCallbackReturn.SUCCESS
        if self.trigger_configure() != done or self.trigger_activate() != done:
            self.exit_code = EXIT_FAILED
        self.publish_status()

    @staticmethod
    def _steady_ns() -> int:
        return int(rclpy.clock.Clock(clock_type=_STEADY).now().nanoseconds)


_STEADY = rclpy.clock.ClockType.STEADY_TIME


def run_node(
    make_node: Callable[[], Any],
    args: Sequence[str] | None,
    description: str,
    *config_types: type,
    profile: str = IMAGES,
) -> int:
    """Run a node until SIGINT, SIGTERM or its own exit code; return the exit code.

    `--help` prints the description and the parameters of the configuration classes; words that are
    not for ROS, or that ROS refuses, are wrong use. On a signal
    an active lifecycle node is shut down through its transitions, so that a guard comes to a
    planned stop and no publisher is left in the graph. A node with a method `lingers` goes on after
    SIGINT for as long as that returns True, or until another signal. `profile` is of transport.py.
    """
    words = sys.argv[1:] if args is None else args
    if {'-h', '--help'} & set(words):
        print(f'{description}\n{parameters_text(*config_types)}')
        return EXIT_OK
    if wrong := wrong_words(words):
        print(f'error: {wrong}', file=sys.stderr, flush=True)
        return EXIT_USAGE
    signals: list[int] = []

    def on_signal(number: int, _frame: Any) -> None:
        signals.append(number)

    if warning := use_profile(profile):
        print(f'warning: {warning}', file=sys.stderr, flush=True)
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    signal.signal(signal.SIGINT, on_signal)
    signal.signal(signal.SIGTERM, on_signal)
    try:
        node = make_node()
    except (ConfigureError, ParameterError) as error:
        print(f'error: {error}', file=sys.stderr, flush=True)
        rclpy.shutdown()
        return EXIT_USAGE
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        while not signals and getattr(node, 'exit_code', None) is None:
            executor.spin_once(timeout_sec=0.1)
        while signals == [signal.SIGINT] and getattr(node, 'lingers', lambda: False)():
            executor.spin_once(timeout_sec=0.1)
        if isinstance(node, LifecycleNode):
            _shut_down(node)
            for _ in range(_LAST_SPINS):  # what the shutdown ended, as a goal, is answered
                executor.spin_once(timeout_sec=0.01)
    except ExternalShutdownException:
        pass  # somebody else ended the context: nothing is left to close
    finally:
        executor.shutdown(timeout_sec=1.0)
        node.destroy_node()
        rclpy.try_shutdown()
    return getattr(node, 'exit_code', None) or EXIT_OK


def _shut_down(node: LifecycleNode) -> None:
    if node.lifecycle_state not in (
        LifecycleStateMsg.PRIMARY_STATE_FINALIZED,
        LifecycleStateMsg.PRIMARY_STATE_UNKNOWN,
    ):
        node.trigger_shutdown()
        node.publish_status()
