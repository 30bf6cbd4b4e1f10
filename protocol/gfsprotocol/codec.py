"""Sans-I/O codec of the control channel: messages to frames and back.

One frame carries a whole batch, because the codec's cost per request decides the master's speed (measured: batches of
64 carry nine times as many requests per second as single messages). Nothing here knows a socket.
"""

import msgspec

from gfsprotocol.errors import InvalidArgument, LocalProtocolError, RemoteProtocolError
from gfsprotocol.ids import MIB
from gfsprotocol.messages import Message

FRAME_BYTES_MAX = 8 * MIB
MESSAGES_PER_FRAME_MAX = 4096

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[Message])


def encode_frame(messages: list[Message]) -> bytes:
    """One frame with all messages. LocalProtocolError if the batch would be larger than a peer accepts.

    InvalidArgument if a message holds what has no place in a frame: a number beyond 64 bits, text that is no UTF-8.
    """
    try:
        frame = _encoder.encode(messages)
    except (OverflowError, UnicodeEncodeError) as error:
        raise InvalidArgument(f"a value is out of range: {error}") from error
    if len(frame) > FRAME_BYTES_MAX:
        raise LocalProtocolError(f"a frame of {len(frame)} bytes is larger than the limit of {FRAME_BYTES_MAX}")
    return frame


def decode_frame(frame: bytes) -> list[Message]:
    """The messages of a frame. RemoteProtocolError if it is too large or not ours."""
    if len(frame) > FRAME_BYTES_MAX:
        raise RemoteProtocolError(f"a frame of {len(frame)} bytes is larger than the limit of {FRAME_BYTES_MAX}")
    try:
        messages = _decoder.decode(frame)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RemoteProtocolError(f"a frame of {len(frame)} bytes cannot be read: {error}") from error
    if len(messages) > MESSAGES_PER_FRAME_MAX:
        raise RemoteProtocolError(f"a frame holds {len(messages)} messages, the limit is {MESSAGES_PER_FRAME_MAX}")
    return messages
