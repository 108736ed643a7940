# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Long fuzz of the guard: adversarial chunks, jittered ticks, outages, stops, judged as executed.

    python test/fuzz/fuzz_guard.py [--seconds S] [--joint-steps N] [--seed N] [--workers N]

It needs no ROS: numpy, ruckig and PyYAML alone. Each episode has a seed of its own, and episodes
run side by side in as many processes as asked for. Last line: `fuzz: N joint-steps, 0 excess`.
Exit 1, with the seed to repeat it, on any excess. Every ten seconds it says how far it is, and from
which seed another run would go on.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import sys
import time
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from guard_world import HOME, ExcessError, GuardState, World, fr3_limits, smooth_plan

from vla_deploy.core.chunk import Chunk
from vla_deploy.core.guard_config import GuardConfig

EPISODE_TICKS = 400
TELL_S = 10.0


def random_config(rng: np.random.Generator) -> GuardConfig:
    """A configuration out of the range that people use, checks on chunks mostly wide open."""
    return GuardConfig(
        period_s=float(rng.choice([0.004, 0.01, 0.01, 0.02])),
        lead_s=float(rng.choice([0.0, 0.005, 0.02, 0.03])),
        horizon_s=float(rng.choice([0.08, 0.1, 0.3])),
        mode='clamp' if rng.random() < 0.9 else 'reject',
        start_jump=float(rng.choice([0.1, 10.0, 10.0])),
        soft_margin=float(rng.choice([0.0, 0.005])),
        tick_gap_s=5.0, joint_state_timeout_s=5.0, joint_state_steady_timeout_s=10.0,
        trip_count=1000, max_lag_s=float(rng.choice([0.1, 0.5, 10.0])),
        chunk_silence_s=float(rng.choice([0.1, 5.0])),
    )


def random_data(rng: np.random.Generator, around: np.ndarray, period_s: float) -> np.ndarray:
    """Samples of some kind of plan: smooth, noisy, far steps, waves, extreme or not finite."""
    steps = int(rng.integers(2, 40))
    joints = len(around)
    kind = rng.integers(9)
    if kind == 0:
        return smooth_plan(around, rng.normal(0, 0.3, joints), steps, period_s)
    if kind == 1:
        return around + np.cumsum(rng.normal(0, 0.05, (steps, joints)), axis=0)
    if kind == 2:
        return np.repeat(around + rng.normal(0, 2.0, (1, joints)), steps, axis=0)
    if kind == 3:
        phase = np.arange(steps)[:, None] * period_s * rng.uniform(1, 30)
        return around + rng.uniform(0, 1) * np.sin(phase + rng.uniform(0, 6, joints))
    if kind == 4:
        return np.full((steps, joints), 100.0)
    if kind == 5:
        speed = rng.uniform(-6, 6, joints)
        return around + np.arange(steps)[:, None] * period_s * speed
    if kind == 6:
        data = around + rng.normal(0, 0.02, (steps, joints))
        extreme = rng.choice([1e308, -1e308, 5e-324, np.nan, np.inf, 1e17])
        data[rng.integers(steps), rng.integers(joints)] = extreme
        return data
    if kind == 7:
        return rng.uniform(-4, 4, (steps, joints))
    return around + rng.choice([-1e308, 1e308, 1.0], (steps, joints))


def damaged(rng: np.random.Generator, chunk: Chunk) -> Chunk:
    """The chunk with a wrong shape, wrong names, an impossible time or another order of joints."""
    names, data = chunk.joint_names, chunk.data
    order = rng.permutation(len(names))
    changes: list[dict[str, Any]] = [
        {'joint_names': tuple(names[i] for i in order), 'data': data[:, order]},
        {'joint_names': (*names[:-1], 'nobody')},
        {'joint_names': (*names[:-1], names[0])},
        {'joint_names': ()},
        {'data': data[:, :-1]},
        {'data': data[:1]},
        {'data': data[:0]},
        {'data': data.ravel()},
        {'data': data[None]},
        {'data': np.zeros(data.shape, np.float32)},
        {'data': np.asfortranarray(data)},
        {'data': np.zeros((100_000, 7))},
        {'period_s': float(rng.choice([0.0, -0.05, 5e-324, 1e-9, 1e308, np.nan, np.inf]))},
        {'stamp_ns': int(rng.choice([-1, 0, 2**62]))},
        {'valid_until_ns': int(rng.choice([-(2**62), 2**62]))},
        {'observation_stamp_ns': int(rng.choice([-(2**62), 2**62]))},
        {'control_mode': int(rng.integers(0, 255))},
        {'schema_version': int(rng.integers(0, 255))},
        {'seq': int(rng.choice([0, 2**63]))},
    ]
    return dataclasses.replace(chunk, **changes[rng.integers(len(changes))])


def start_position(rng: np.random.Generator, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """Home, anywhere inside, or close to a bound."""
    kind = rng.integers(3)
    if kind == 0:
        return HOME
    part = rng.uniform(0.01, 0.99, len(lower)) if kind == 1 else rng.choice([0.004, 0.996], 7)
    return np.asarray(lower + part * (upper - lower))


def episode(seed: int, ticks: int = EPISODE_TICKS) -> int:
    """One episode of some ticks; returns joint-steps judged. Raises ExcessError."""
    rng = np.random.default_rng(seed)
    config = random_config(rng)
    jerk = float(rng.choice([50.0, 500.0, 5000.0])) if rng.random() < 0.25 else None
    limits = fr3_limits(float(rng.choice([1.0, 10.0, 20.0])), jerk)
    lead_ns = round(config.lead_s * 1e9)
    world = World(config, limits, start_position(rng, limits.lower, limits.upper),
                  receive_delay_ns=int(rng.integers(0, lead_ns + 1)))
    world.keep_outputs = False
    out = world.arm()
    for _ in range(ticks):
        inputs: dict[str, object] = {}
        if rng.random() < 0.12:
            around = world.robot_state(world.ros_ns)[0]
            period_s = float(rng.choice([0.002, 0.01, 1 / 30, 0.05, 0.1, 0.5]))
            data = random_data(rng, around, period_s)
            if rng.random() < 0.1:
                world.session += 'x'
            shift_ns = int(rng.normal(0, 5e7))
            chunk = world.chunk(data, period_s)
            chunk = world.chunk(data, period_s, stamp_ns=chunk.stamp_ns + shift_ns)
            if rng.random() < 0.2:
                chunk = damaged(rng, chunk)
            inputs['chunks'] = (chunk,)
        if rng.random() < 0.005:
            inputs['disarm'] = True
        if rng.random() < 0.002:
            inputs['estop_request'] = True
        dt_s = config.period_s * float(2.0 ** rng.uniform(-2, 2))
        if rng.random() < 0.03:
            dt_s = config.period_s * float(rng.uniform(5, 50))
        elif 'chunks' in inputs and rng.random() < 0.5:
            # Between two ticks, as soon as it came; under a simulated clock at the same time.
            dt_s = config.period_s * float(rng.choice([0.0, 10.0 ** rng.uniform(-6, 0)]))
        out = world.tick(dt_s, **inputs)
        if out.state is GuardState.ESTOP_LATCHED:
            world.ticks(60)
            out = world.tick(reset=True)
        if out.state is GuardState.DISARMED:
            world.judge.current = None
            world.tick(arm=True)
    return world.judge.joint_steps


def fuzz(seed: int, workers: int, seconds: float, joint_steps: float) -> int:
    """Run the episodes of seed, seed + 1 and so on until the time is up or the joint-steps are
    judged; returns the exit code."""
    begin_s = time.monotonic()
    tell_s, judged, excesses = begin_s + TELL_S, 0, 0
    with ProcessPoolExecutor(workers) as pool:
        running: dict[Future[int], int] = {}
        while True:
            ended = excesses > 0 or judged >= joint_steps or time.monotonic() >= begin_s + seconds
            while not ended and len(running) < 2 * workers:  # nobody waits for the next one
                running[pool.submit(episode, seed)] = seed
                seed += 1
            if not running:
                break
            for done in wait(running, timeout=TELL_S, return_when=FIRST_COMPLETED).done:
                seed_of_done, error = running.pop(done), done.exception()
                if error is None:
                    judged += done.result()
                    continue
                print(f'seed {seed_of_done}: {error!r}', flush=True)
                if not isinstance(error, ExcessError):
                    raise error
                excesses += 1
            if time.monotonic() >= tell_s:
                tell_s = time.monotonic() + TELL_S
                rate = judged / (time.monotonic() - begin_s)
                print(f'{judged} joint-steps, {rate:.0f}/s, next seed {seed}', flush=True)
    print(f'fuzz: {judged} joint-steps, {excesses} excess', flush=True)
    return 1 if excesses else 0


def main() -> int:
    """Run the fuzz as the command line says."""
    parser = argparse.ArgumentParser(description=(__doc__ or '').split('\n')[0])
    parser.add_argument('--seconds', type=float,
                        help='when to stop; 60, and with --joint-steps never')
    parser.add_argument('--joint-steps', type=float, default=math.inf,
                        help='stop when so many are judged, for instance 1e8')
    parser.add_argument('--seed', type=int, default=1, help='of the first episode')
    parser.add_argument('--workers', type=int, default=1, help='processes')
    given = parser.parse_args()
    seconds = given.seconds
    if seconds is None:
        seconds = 60.0 if given.joint_steps == math.inf else math.inf
    return fuzz(given.seed, given.workers, seconds, given.joint_steps)


if __name__ == '__main__':
    sys.exit(main())
