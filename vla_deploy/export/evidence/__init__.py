# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Recorded agreement of each family's pipeline with its reference, one JSON file a family.

`tools/export/evidence.py` writes the files from recorded reference cases.
"""

from __future__ import annotations

import hashlib
import json
from importlib import resources
from pathlib import Path
from typing import Any

import vla_deploy

# Whatever decides a number between a raw observation and a robot-unit action.
_SHARED = (
    'export/graph.py',
    'export/simplify.py',
    'export/torch_pipeline.py',
    'export/weight_store.py',
    'models/flow.py',
    'models/language.py',
    'models/vision.py',
    'pipeline/guidance.py',
    'pipeline/compiled.py',
    'pipeline/images.py',
    'pipeline/native.py',
    'pipeline/normalize.py',
    'pipeline/preprocess.py',
    'pipeline/resize.c',
    'pipeline/sampler.py',
    'pipeline/tokenize.py',
)
_PI = ('models/gemma.py', 'models/pi.py')
SOURCES = {
    'smolvla': (*_SHARED, 'models/expert.py', 'models/smolvla.py'),
    'pi0': (*_SHARED, *_PI),
    'pi05': (*_SHARED, *_PI),
}


def source_digests(family: str) -> dict[str, str]:
    """Return the SHA-256 of each source file that the family's numbers depend on."""
    package = Path(vla_deploy.__file__).parent
    return {
        name: hashlib.sha256((package / name).read_bytes()).hexdigest()
        for name in SOURCES[family]
    }


def evidence_for(family: str) -> dict[str, Any]:
    """Return the family's evidence with `changed_sources`: files that differ from the proven.

    A family without evidence has no reference, no cases, and all its sources unproven.
    """
    file = resources.files(__name__).joinpath(f'{family}.json')
    evidence: dict[str, Any] = {'family': family, 'reference': {}, 'cases': {}, 'sources': {}}
    if file.is_file():
        evidence = json.loads(file.read_text(encoding='utf-8'))
    now = source_digests(family)
    proven = evidence['sources']
    evidence['changed_sources'] = sorted(
        name for name in set(now) | set(proven) if now.get(name) != proven.get(name)
    )
    return evidence
