# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Instructions as token ids, with nothing but the tokenizer file that the bundle carries."""

from __future__ import annotations

import dataclasses
import os

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from vla_deploy.core.contract import TokenizerSpec


class TokenizerError(ValueError):
    """A tokenizer file cannot be used; the message names it."""


@dataclasses.dataclass(frozen=True)
class Prompt:
    """Token ids int64 [max_length] and their mask bool [max_length]; `truncated` says whether the
    text did not fit and lost its end."""

    ids: NDArray[np.int64]
    mask: NDArray[np.bool_]
    truncated: bool


class PromptEncoder:
    """Encodes instructions by the rules of a contract; the last one is remembered."""

    def __init__(self, path: str | os.PathLike[str], spec: TokenizerSpec) -> None:
        """Load a tokenizer.json; raises TokenizerError, which names the file."""
        try:
            self._tokenizer = Tokenizer.from_file(os.fspath(path))
        except Exception as error:  # the library raises nothing narrower
            raise TokenizerError(f'{path}: is not a tokenizer: {error}') from error
        # the file's own settings must not act: the contract says how to cut and to pad
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        if spec.pad_token_id >= self._tokenizer.get_vocab_size():
            raise TokenizerError(
                f'{path}: has {self._tokenizer.get_vocab_size()} tokens, but the contract pads '
                f'with token {spec.pad_token_id}'
            )
        self._spec = spec
        self._last: tuple[str, Prompt] | None = None

    def __call__(self, instruction: str) -> Prompt:
        """Encode an instruction; the arrays are read-only."""
        if self._last is None or self._last[0] != instruction:
            self._last = (instruction, self._encode(instruction))
        return self._last[1]

    def _encode(self, instruction: str) -> Prompt:
        spec = self._spec
        text = instruction
        if spec.newline == 'append_if_missing' and not text.endswith('\n'):
            text += '\n'
        found = self._tokenizer.encode(text).ids
        count = min(len(found), spec.max_length)
        ids = np.full(spec.max_length, spec.pad_token_id, np.int64)
        ids[:count] = found[:count]
        mask = np.arange(spec.max_length) < count
        for array in (ids, mask):
            array.flags.writeable = False
        return Prompt(ids, mask, len(found) > spec.max_length)
