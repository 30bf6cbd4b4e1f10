"""What is pure: addresses, ranges, tokens, digests."""

import pytest
from hypothesis import given
from hypothesis import strategies as some

from gfsgateway import targets, tokens
from gfsgateway.rest import digests, ranges
from gfsprotocol.errors import AuthenticationFailed, InvalidArgument, NameTooLong

_KEY = tokens.token_key(bytes(range(32)))
_name = some.binary(min_size=1, max_size=40).filter(
    lambda name: b"/" not in name and b"\0" not in name and name not in (b".", b"..")
)


@given(some.lists(_name, min_size=1, max_size=5))
def test_every_path_survives_its_address(names: list[bytes]) -> None:
    path = b"/" + b"/".join(names)
    address = targets.encoded(path)
    assert address.isascii() and address.isprintable()
    assert targets.decoded(address.removeprefix("/")) == path


@given(some.text(max_size=60))
def test_no_address_leads_upwards(text: str) -> None:
    try:
        path = targets.decoded(text)
    except (InvalidArgument, NameTooLong, UnicodeEncodeError):
        return
    assert path.startswith(b"/") and b"\0" not in path and not {b".", b".."} & set(path.split(b"/"))


@pytest.mark.parametrize("raw", ["..", "a/../b", "%2e%2e/a", ".%2E", "a/./b", "a%2fb", "a%00", "a%", "a%2", "a%zz"])
def test_what_could_be_read_in_two_ways_is_refused(raw: str) -> None:
    with pytest.raises(InvalidArgument):
        targets.decoded(raw)


def test_it_is_decoded_once() -> None:
    assert targets.decoded("%252e%252e/x") == b"/%2e%2e/x"


@pytest.mark.parametrize(
    ("target", "path"),
    [("/a?b=/c", "/a"), ("http://host:1/a%2Fb?c", "/a%2Fb"), ("HTTP://host", "/"), ("/a#b", "/a")],
)
def test_the_path_of_a_target(target: str, path: str) -> None:
    assert targets.raw_path(target) == path


@given(some.text("bytes=0123456789-, ", max_size=40), some.integers(0, 300))
def test_ranges_lie_in_the_file(specs: str, size: int) -> None:
    for each in ranges.parse(f"bytes={specs}", size) or []:
        assert 0 <= each.first <= each.last < size


@given(some.tuples(some.integers(0, 2**32 - 1), some.integers(0, 2**32 - 1)), some.data())
def test_a_token_says_what_was_signed_and_no_change_of_it_is_accepted(
    user: tuple[int, int], data: some.DataObject
) -> None:
    token = tokens.sign(_KEY, user, ("/a/", "/b/c"), 1000)
    assert tokens.verify(_KEY, token, 999.0) == tokens.Claims(1, *user, (), ("/a", "/b/c"), 1000)
    at = data.draw(some.integers(0, len(token) - 1))
    other = data.draw(some.sampled_from("abcXYZ019-_.").filter(lambda character: character != token[at]))
    changed = token[:at] + other + token[at + 1 :]
    try:  # the last character of base64 has bits that mean nothing
        assert tokens.verify(_KEY, changed, 999.0).user == user
        assert at in (len(token) - 1, token.rindex(".") - 1)
    except AuthenticationFailed:
        pass


def test_tokens_end() -> None:
    token = tokens.sign(_KEY, (1, 1), (), 1000)
    with pytest.raises(AuthenticationFailed, match="expired"):
        tokens.verify(_KEY, token, 1000.0)
    for rubbish in ("", "gfs1.", "gfs1..", "gfs1.e30.e30", "x" * 10_000, "gfs1.ü.x"):
        with pytest.raises(AuthenticationFailed):
            tokens.verify(_KEY, rubbish, 0.0)
    with pytest.raises(InvalidArgument):
        tokens.sign(_KEY, (1, 1), ("/a/../b",), 1000)
    with pytest.raises(InvalidArgument):
        tokens.sign(_KEY, (1, 1), tuple(f"/{n}" for n in range(5000)), 1000)


def test_digest_headers() -> None:
    assert digests.wanted({"Want-Repr-Digest": "md5=1, sha-256=3"}) == "sha-256"
    assert digests.wanted({"Want-Repr-Digest": "blake3=0"}) is None
    assert digests.wanted({"Want-Repr-Digest": "sha-256=1, blake3=9, md5=10"}) == "blake3"
    assert digests.wanted({"Want-Repr-Digest": "blake3, sha-256"}) == "blake3"
    assert digests.wanted({"Want-Digest": "SHA-256;q=0.5, blake3;q=0.0, unixsum"}) == "sha-256"
    assert digests.wanted({"Want-Digest": "?, sha-256=x"}) is None
    expected = digests.Expected({"Digest": "md5=abc,blake3=" + "A" * 43 + "="})
    assert expected
    with pytest.raises(InvalidArgument):
        expected.check()
    with pytest.raises(InvalidArgument):
        digests.Expected({"Digest": "blake3=?"})
