# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""What the recorder says: status and diagnostics as messages."""

from __future__ import annotations

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from vla_deploy.trace.record import Recorder
from vla_deploy_msgs.msg import RecorderStatus


def status_message(recorder: Recorder, bag: str, stamp: Time) -> RecorderStatus:
    """Return the state of a recorder."""
    counts = recorder.counts
    topics = sorted({*counts.recorded, *counts.dropped, *counts.lost})
    msg = RecorderStatus(
        recording=not recorder.failure,
        reason=recorder.problem(),
        bag=bag,
        bytes_written=recorder.bytes_written,
        bytes_waiting=recorder.waiting_bytes,
        messages=sum(counts.recorded.values()),
        dropped=sum(counts.dropped.values()),
        lost=sum(counts.lost.values()),
        topics=topics,
        topic_messages=[counts.recorded.get(t, 0) for t in topics],
        topic_dropped=[counts.dropped.get(t, 0) for t in topics],
        topic_lost=[counts.lost.get(t, 0) for t in topics],
    )
    msg.header.stamp = stamp
    return msg


def diagnostics_message(name: str, status: RecorderStatus) -> DiagnosticArray:
    """Return the status as a diagnostic: ERROR when nothing is written, WARN after a loss."""
    level = DiagnosticStatus.WARN if status.reason else DiagnosticStatus.OK
    if not status.recording:
        level = DiagnosticStatus.ERROR
    values = {
        'bag': status.bag,
        'messages': status.messages,
        'dropped': status.dropped,
        'lost': status.lost,
        'bytes_written': status.bytes_written,
        'bytes_waiting': status.bytes_waiting,
    }
    diagnostic = DiagnosticStatus(
        level=level,
        name=f'{name}: recorder',
        message=status.reason or 'records',
        hardware_id=name,
        values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
    )
    return DiagnosticArray(header=status.header, status=[diagnostic])
