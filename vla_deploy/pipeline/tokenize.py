# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Prompts as token ids, with nothing but the tokenizer file that the bundle carries."""

from __future__ import annotations

import dataclasses
import os

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from vla_deploy.core.contract import TokenizerSpec
from vla_deploy.pipeline.observation import PromptError

STATE_BINS = 256
_BIN_EDGES = np.linspace(-1.0, 1.0, STATE_BINS + 1)[:-1]
_AFTER_STATE = ';\nAction: '


class TokenizerError(ValueError):
    """A tokenizer file cannot be used; the message names it."""


@dataclasses.dataclass(frozen=True)
class Prompt:
    """Token ids int64 [max_length] and their mask bool [max_length]; `truncated` says whether the
    text did not fit and lost its end, `state_lost` whether a state that stands in the text is in
    what was lost, wholly or in part."""

    ids: NDArray[np.int64]
    mask: NDArray[np.bool_]
    truncated: bool
    state_lost: bool


def state_in_text(instruction: str, state: NDArray[np.float32]) -> str:
    """Return pi0.5's prompt of an instruction and a normalised state, float32 [dim].

    A number is its bin of 256 over [-1, 1): -1 below that range, 255 at its end and above.
    """
    text = instruction.strip().replace('_', ' ').replace('\n', ' ')
    bins = np.digitize(state, _BIN_EDGES) - 1
    return f'Task: {text}, State: {" ".join(map(str, bins))}{_AFTER_STATE}'


class PromptEncoder:
    """Encodes prompts by the rules of a contract; the last one is remembered."""

    def __init__(
        self, path: str | os.PathLike[str], spec: TokenizerSpec, known: int | None = None
    ) -> None:
        """Load a tokenizer.json; raises TokenizerError, which names the file.

        `known`: tokens that the policy has an embedding of, those of the lowest ids; the tokenizer
        may have more. None: as many as the tokenizer.
        """
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
        if known is not None and spec.pad_token_id >= known:
            raise TokenizerError(
                f'{path}: the contract pads with token {spec.pad_token_id}, but the policy knows '
                f'only the first {known}'
            )
        self._spec, self._known = spec, known
        self._last: tuple[str, Prompt] | None = None

    def __call__(self, instruction: str, state: NDArray[np.float32]) -> Prompt:
        """Encode an instruction, and the normalised state [dim] where the contract has it in the
        text; the arrays are read-only. Raises PromptError for a text that holds a token which the
        policy does not know."""
        text = instruction
        if self._spec.prompt == 'instruction_and_state':
            text = state_in_text(instruction, state)
        if self._spec.newline == 'append_if_missing' and not text.endswith('\n'):
            text += '\n'
        if self._last is None or self._last[0] != text:
            self._last = (text, self._encode(text))
        return self._last[1]

    def _encode(self, text: str) -> Prompt:
        spec = self._spec
        encoding = self._tokenizer.encode(text)
        found = encoding.ids
        count = min(len(found), spec.max_length)
        ids = np.full(spec.max_length, spec.pad_token_id, np.int64)
        ids[:count] = found[:count]
        self._check_known(ids[:count], text, encoding)
        mask = np.arange(spec.max_length) < count
        for array in (ids, mask):
            array.flags.writeable = False
        truncated = len(found) > spec.max_length
        state_lost = (
            truncated
            and spec.prompt == 'instruction_and_state'
            and encoding.offsets[count - 1][1] < len(text) - len(_AFTER_STATE)
        )
        return Prompt(ids, mask, truncated, state_lost)

    def _check_known(self, ids: NDArray[np.int64], text: str, encoding: Encoding) -> None:
        """Refuse what would be read beyond the embedding's end, as `<image>` of PaliGemma."""
        if self._known is None or ids.size == 0 or ids.max() < self._known:
            return
        index = int(ids.argmax())
        begin, end = encoding.offsets[index]
        raise PromptError(
            f'instruction: {text[begin:end] or encoding.tokens[index]!r} is token {ids[index]}, '
            f'but the policy knows only the first {self._known}; leave it out'
        )
