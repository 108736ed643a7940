# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""An image's digest in place of the image: what ImageDigest.msg says, serialised."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable

from vla_deploy.trace.bag_writer import Topic
from vla_deploy.trace.cdr import Decoder
from vla_deploy.trace.definitions import installed_definition, split_definition

DIGEST_TYPE = 'vla_deploy_msgs/msg/ImageDigest'
_ENCAPSULATION = b'\x00\x01\x00\x00'


def digest_topic(topic: Topic) -> Topic:
    """Return the topic of the digests of an image topic."""
    definition, type_hash = installed_definition(DIGEST_TYPE)
    return Topic(f'{topic.name}/digest', DIGEST_TYPE, definition, type_hash, topic.qos)


def digester(topic: Topic) -> Callable[[bytes], bytes]:
    """Return what makes a serialised ImageDigest of a serialised image of this topic."""
    decode = Decoder(topic.type_name, split_definition(topic.type_name, topic.definition))

    def digest(data: bytes) -> bytes:
        image = decode(data)
        stamp = image.header.stamp
        body = struct.pack('<iI', stamp.sec, stamp.nanosec) + _text(image.header.frame_id)
        body += bytes(-len(body) % 8) + struct.pack('<Q', image.data.nbytes)
        return _ENCAPSULATION + body + _text(hashlib.sha256(image.data).hexdigest())

    return digest


def _text(text: str) -> bytes:
    encoded = text.encode('utf-8') + b'\x00'
    return struct.pack('<I', len(encoded)) + encoded
