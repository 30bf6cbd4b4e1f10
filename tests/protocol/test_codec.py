"""The wire codec: every message survives the trip, and nothing that is not a frame gets through or breaks more."""

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gfsprotocol import bulk, codec
from gfsprotocol import messages as msg
from gfsprotocol.errors import (
    ERRORS_BY_CODE,
    GfsError,
    Kind,
    LocalProtocolError,
    NamespaceError,
    RemoteProtocolError,
    from_wire,
)

numbers = st.integers(0, 2**63 - 1)
attributes = st.builds(msg.Attributes, *[numbers] * 12)
locations = st.builds(
    msg.ChunkLocation, numbers, numbers, numbers, numbers, st.lists(numbers, max_size=4).map(tuple), st.binary()
)
bodies = st.one_of(
    st.builds(msg.Stat, st.binary(max_size=50), numbers, st.booleans()),
    st.builds(msg.Create, st.binary(max_size=50), numbers, numbers, numbers, numbers, *[st.booleans()] * 4),
    st.builds(msg.SetAttributes, st.binary(max_size=50), numbers, *[st.none() | numbers] * 6, st.booleans()),
    st.builds(msg.AllocateChunk, numbers, numbers, st.lists(numbers, max_size=3).map(tuple), numbers),
    st.builds(msg.ChunkReport, numbers, st.binary(max_size=100), st.booleans()),
)
replies = st.one_of(
    st.builds(msg.ErrorReply, numbers, st.text(max_size=50), st.text(max_size=10)),
    st.builds(msg.AttributesReply, attributes),
    st.builds(msg.Listing, st.lists(st.builds(msg.Entry, st.binary(), attributes)).map(tuple), st.booleans()),
    st.builds(msg.Locations, attributes, st.lists(locations).map(tuple), st.just(())),
)
messages = st.one_of(
    st.builds(
        msg.Request,
        numbers,
        bodies,
        numbers,
        st.lists(numbers, max_size=5).map(tuple),
        st.none() | st.builds(msg.Call, numbers, numbers, st.booleans()),
        numbers,
    ),
    st.builds(msg.Response, numbers, replies, numbers),
    st.builds(msg.Hello, numbers, st.text(max_size=10), st.binary(), st.binary(), st.lists(st.text(max_size=3))),
)


@given(st.lists(messages, max_size=20))
def test_messages_survive_the_trip(batch: list[msg.Message]) -> None:
    assert codec.decode_frame(codec.encode_frame(batch)) == batch


@given(st.binary(max_size=300))
@example(b"\x91" * 100_000)
@example(b"\xdd\xff\xff\xff\xff")
@example(msgspec.msgpack.encode([[10, 1, [9999], 5]]))
def test_garbage_is_a_remote_protocol_error(frame: bytes) -> None:
    try:
        decoded = codec.decode_frame(frame)
    except RemoteProtocolError as error:
        assert "\n" not in error.message
    else:
        assert codec.decode_frame(codec.encode_frame(decoded)) == decoded


@given(st.lists(messages, min_size=1, max_size=3), st.data())
def test_a_damaged_frame_never_raises_anything_else(batch: list[msg.Message], data: st.DataObject) -> None:
    frame = bytearray(codec.encode_frame(batch))
    position = data.draw(st.integers(0, len(frame) - 1))
    frame[position] ^= data.draw(st.integers(1, 255))
    for damaged in (bytes(frame), bytes(frame[:position])):
        try:
            codec.decode_frame(damaged)
        except RemoteProtocolError:
            continue


def test_frames_and_batches_are_bounded() -> None:
    with pytest.raises(LocalProtocolError):
        codec.encode_frame([msg.Response(1, msg.Data(bytes(codec.FRAME_BYTES_MAX)))])
    with pytest.raises(RemoteProtocolError):
        codec.decode_frame(bytes(codec.FRAME_BYTES_MAX + 1))
    done = msgspec.msgpack.encode([msg.Notice(msg.Done())] * (codec.MESSAGES_PER_FRAME_MAX + 1))
    with pytest.raises(RemoteProtocolError):
        codec.decode_frame(done)


headers = st.one_of(
    st.builds(bulk.OpenWrite, st.binary(max_size=200), st.integers(0, 16), st.binary(max_size=16), numbers),
    st.builds(bulk.Mutate, st.integers(0, 3), numbers, numbers, st.binary(max_size=544), numbers, st.booleans()),
    st.builds(
        bulk.SingleWrite,
        st.binary(max_size=200),
        st.integers(0, 16),
        numbers,
        numbers,
        numbers,
        st.binary(max_size=544),
        st.booleans(),
        st.booleans(),
    ),
    st.builds(bulk.Read, st.binary(max_size=57), numbers, numbers, numbers, numbers, st.booleans()),
)


@given(headers, st.integers(0, bulk.REQUEST_PAYLOAD_BYTES_MAX))
def test_bulk_headers_survive_the_trip(header: bulk.RequestHeader, payload_bytes: int) -> None:
    frame = bulk.encode(header, payload_bytes)
    header_bytes, announced = bulk.decode_prefix(frame[: bulk.PREFIX.size], bulk.REQUEST_PAYLOAD_BYTES_MAX)
    assert announced == payload_bytes
    assert bulk.decode_request(frame[bulk.PREFIX.size :]) == header
    assert header_bytes == len(frame) - bulk.PREFIX.size


@given(st.binary(min_size=8, max_size=8))
@example(bulk.PREFIX.pack(bulk.MAGIC, 10, 2**32 - 1))
def test_bulk_prefixes_are_bounded(prefix: bytes) -> None:
    try:
        header_bytes, payload_bytes = bulk.decode_prefix(prefix, bulk.REQUEST_PAYLOAD_BYTES_MAX)
    except RemoteProtocolError:
        return
    assert header_bytes <= bulk.HEADER_BYTES_MAX
    assert payload_bytes <= bulk.REQUEST_PAYLOAD_BYTES_MAX


@given(st.binary(max_size=100))
def test_bulk_garbage_is_a_remote_protocol_error(header: bytes) -> None:
    for decode in (bulk.decode_request, bulk.decode_reply):
        try:
            decode(header)
        except RemoteProtocolError:
            continue


def test_every_error_survives_the_wire_and_has_its_numbers() -> None:
    codes = [error.code for error in ERRORS_BY_CODE.values()]
    assert len(codes) == len(set(codes))
    for code, error in ERRORS_BY_CODE.items():
        again = from_wire(code, "what happened", "hint")
        assert (type(again), again.message, again.hint) == (error, "what happened", "hint")
        assert error.errno > 0
        assert 400 <= error.http_status < 600
        assert 0 < error.exit_code < 128
        assert isinstance(error.kind, Kind)
        assert error().message
    assert type(from_wire(199, "newer")) is NamespaceError
    assert type(from_wire(9999, "newer")) is GfsError
