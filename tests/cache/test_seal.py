"""Whether what was sealed opens for whom it was sealed, unchanged, and for nobody and nothing else."""

from __future__ import annotations

import base64
import itertools

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxmiddleware.cache.base import Fence, Key, Stored
from ctxmiddleware.cache.redis.codec import MAX_BYTES, VERSION, Codec, NoValue
from ctxmiddleware.cache.redis.keys import KeySpace
from ctxmiddleware.cache.redis.seal import Seal, key_faults
from ctxmiddleware.errors import ConfigurationError
from ctxmiddleware.secret import Secret

ADA: Key = ("tenant", "ada@example.org")
BOB: Key = ("tenant", "bob@example.org")
FENCE = Fence(b"everyone", b"of her name")
VALUE = {"full_name": "Ada Lovelace", "role": "staff"}


def _key(number: int) -> Secret:
    return Secret(base64.b64encode(bytes(range(number, number + 32))).decode())


OLD, NEW, THEIRS = _key(1), _key(2), _key(3)
SEAL = Seal([NEW, OLD])


def _codec(*keys: Secret) -> Codec[dict[str, str]]:
    return Codec(dict[str, str], "db", seal=Seal(keys) if keys else None)


CODEC = _codec(NEW, OLD)


def _place(key: Key, namespace: str = "test") -> str:
    return KeySpace(namespace, CODEC.shape).of(key).value


def _packed(
    key: Key = ADA, fence: Fence = FENCE, value: dict[str, str] | None = VALUE, codec: Codec[dict[str, str]] = CODEC
) -> bytes:
    data = codec.pack(key, fence, Stored(value, "db", 900.0), 1_200_000, redis_key=_place(key))
    assert data is not None
    return data


def _unpacked(
    data: bytes,
    key: Key = ADA,
    fence: Fence = FENCE,
    place: str | None = None,
    codec: Codec[dict[str, str]] = CODEC,
) -> object:
    return codec.unpack(data, key, fence, 1_000_000, redis_key=_place(key) if place is None else place)


def _parts(sealed: bytes, fence: Fence = FENCE) -> list[bytes]:
    """Return the mark, version, key id, two lengths, two generations, nonce, ciphertext and tag."""
    ends = list(itertools.accumulate([1, 1, 8, 2, 2, len(fence.everyone), len(fence.name), 12]))
    bounds = [0, *ends, len(sealed) - 16, len(sealed)]
    return [sealed[begin:end] for begin, end in itertools.pairwise(bounds)]


@pytest.mark.parametrize("value", [VALUE, None], ids=["known", "unknown"])
def test_what_was_sealed_comes_back(value: dict[str, str] | None) -> None:
    """A known user's value and the news of an unknown one both return, with their age."""
    assert _unpacked(_packed(value=value)) == Stored(value, "db", 900.0, 200.0)


def test_nothing_of_it_can_be_read_and_no_two_are_alike() -> None:
    """Neither the value, its field names, its origin nor whom it is for; and the same value is sealed another way."""
    one, two = _packed(), _packed()
    for text in (b"Ada", b"full_name", b"staff", b"tenant", b"ada@example.org", b"db"):
        assert text in _packed(codec=_codec())
        assert text not in one
    assert _parts(one)[:7] == _parts(two)[:7]
    assert all(a != b for a, b in zip(_parts(one)[7:], _parts(two)[7:], strict=True))


@pytest.mark.parametrize(
    ("key", "place"),
    [
        (BOB, _place(BOB)),
        (BOB, _place(ADA)),
        (ADA, _place(BOB)),
        (ADA, _place(ADA, "another")),
        (("other", ADA[1]), _place(("other", ADA[1]))),
        (ADA, _place(ADA) + "0"),
        (ADA, ""),
    ],
    ids=["bob's", "bob, at ada's", "ada, at bob's", "another namespace", "another partition", "longer", "none"],
)
def test_anywhere_else_and_for_anybody_else_it_is_not_ours(key: Key, place: str) -> None:
    """A value that was moved under another key is nobody's, and so is one that is asked for by another."""
    data = _packed()
    assert isinstance(_unpacked(data), Stored)
    assert _unpacked(data, key, place=place) is NoValue.FOREIGN


@pytest.mark.parametrize("fence", [Fence(b"later", FENCE.name), Fence(FENCE.everyone, b"later"), Fence(*FENCE[::-1])])
def test_overtaken_is_told_from_what_is_not_ours(fence: Fence) -> None:
    """Sealed for this place by us, under another generation: after an invalidation there are many of them."""
    assert _unpacked(_packed(), fence=fence) is NoValue.OVERTAKEN


def test_a_generation_that_was_put_in_the_place_of_another_is_found_out() -> None:
    """An overtaken value is not brought back by writing the generation in force over its own, nor by moving bounds."""
    later = Fence(b"everyone", b"of her 2nd!")
    data = _parts(_packed())
    data[6] = later.name
    assert _unpacked(b"".join(data), fence=later) is NoValue.FOREIGN
    bounds = _parts(_packed(fence=Fence(b"ab", b"c")), Fence(b"ab", b"c"))
    bounds[3], bounds[4] = bounds[4], bounds[3]
    assert _unpacked(b"".join(bounds), fence=Fence(b"a", b"bc")) is NoValue.FOREIGN


@settings(max_examples=500, deadline=None)
@given(st.data())
def test_one_bit_turned_anywhere_is_found_out(data: st.DataObject) -> None:
    """Header, generations, nonce, ciphertext or tag: not one bit can be another."""
    changed = bytearray(_packed())
    place = data.draw(st.integers(0, len(changed) * 8 - 1))
    changed[place // 8] ^= 1 << place % 8
    assert _unpacked(bytes(changed)) is NoValue.FOREIGN


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_cut_or_lengthened_it_is_not_ours(data: st.DataObject) -> None:
    """Bytes that are missing at either end, within, or too many, are found out."""
    packed = _packed()
    begin, end = sorted(data.draw(st.tuples(*[st.integers(0, len(packed))] * 2).filter(lambda cut: cut[0] != cut[1])))
    for changed in (packed[:begin], packed[end:], packed[:begin] + packed[end:], packed + packed[begin:end]):
        assert _unpacked(changed) is NoValue.FOREIGN


_OTHERS = {
    "the same again": _packed(),
    "another user's": _packed(BOB),
    "an older one": _packed(fence=Fence(b"everyone", b"of the past")),
    "by another key": _packed(codec=_codec(OLD)),
    "by a key not ours": _packed(codec=_codec(THEIRS)),
}


@pytest.mark.parametrize("other", list(_OTHERS))
@settings(max_examples=100, deadline=None)
@given(st.sets(st.integers(0, 9), min_size=1, max_size=9))
def test_parts_of_two_values_make_no_third(other: str, taken: set[int]) -> None:
    """Whatever is taken over from another sealed value, it is not ours, unless it is one of the two as it was."""
    one, two = _packed(), _OTHERS[other]
    pairs = enumerate(zip(_parts(one), _parts(two), strict=True))
    mixed = b"".join(theirs if place in taken else ours for place, (ours, theirs) in pairs)
    assert mixed in (one, two) or _unpacked(mixed) is NoValue.FOREIGN


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 12))
def test_random_bytes_are_not_ours(data: bytes, kept: int) -> None:
    """Neither alone, nor behind the beginning of a value of ours, do bytes raise or become one."""
    assert _unpacked(data) is NoValue.FOREIGN
    assert _unpacked(_packed()[:kept] + data) is NoValue.FOREIGN


def test_sealed_and_unsealed_are_never_taken_for_each_other() -> None:
    """With keys a value in the clear is not ours, however right it is; without, a sealed one is not."""
    unsealed = _codec()
    assert _unpacked(_packed(codec=unsealed), codec=unsealed) == _unpacked(_packed())
    assert _unpacked(_packed(codec=unsealed)) is NoValue.FOREIGN
    assert _unpacked(_packed(), codec=unsealed) is NoValue.FOREIGN


def test_the_first_key_seals_and_every_key_opens() -> None:
    """What the old key sealed opens while it is among the keys; what is sealed from now on needs the new one."""
    old, both, new = _codec(OLD), CODEC, _codec(NEW)
    assert _unpacked(_packed(codec=old), codec=both) == _unpacked(_packed())
    assert _unpacked(_packed(codec=both), codec=new) == _unpacked(_packed())
    assert _unpacked(_packed(codec=both), codec=old) is NoValue.FOREIGN
    assert _unpacked(_packed(codec=old), codec=new) is NoValue.FOREIGN
    assert _unpacked(_packed(codec=_codec(OLD, NEW)), codec=old) == _unpacked(_packed())


def test_another_version_of_the_schema_is_not_ours() -> None:
    """What another release has sealed is not decoded as this one's, whatever it says of itself."""
    sealed = SEAL.close(b"x", VERSION + 1, "key", FENCE)
    assert sealed is not None
    assert SEAL.open(sealed, VERSION + 1, "key") == b"x"
    assert SEAL.open(sealed, VERSION, "key") is None
    parts = _parts(sealed)
    parts[1] = bytes([VERSION])
    assert SEAL.open(b"".join(parts), VERSION, "key") is None


def test_size_is_checked_before_it_is_opened_and_after_it_was_sealed() -> None:
    """More bytes than a value of ours may have are not looked into, though they were sealed; nor are they stored."""
    for size, found in ((1, Stored), (MAX_BYTES, NoValue)):
        fields = msgspec.msgpack.decode(_packed(codec=_codec()))
        fields[6] = "x" * size
        sealed = SEAL.close(msgspec.msgpack.encode(fields), VERSION, _place(ADA), FENCE)
        assert sealed is not None
        assert SEAL.open(sealed, VERSION, _place(ADA)) == msgspec.msgpack.encode(fields)
        assert type(_unpacked(sealed)) is found
    fits = {"full_name": "x" * (MAX_BYTES - len(_packed(codec=_codec(), value={"full_name": ""})) - 8)}
    assert len(_packed(codec=_codec(), value=fits)) <= MAX_BYTES
    assert CODEC.pack(ADA, FENCE, Stored(fits, "db", 900.0), 1_200_000, redis_key=_place(ADA)) is None


def test_a_generation_longer_than_any_of_ours_is_not_sealed() -> None:
    """Somebody else's bytes in the place of a generation raise nothing: the value is not stored."""
    stored = Stored(VALUE, "db", 900.0)
    assert CODEC.pack(ADA, Fence(b"", b"x" * 65_535), stored, 1_200_000, redis_key=_place(ADA))
    assert CODEC.pack(ADA, Fence(b"", b"x" * 65_536), stored, 1_200_000, redis_key=_place(ADA)) is None


@pytest.mark.parametrize(
    "key",
    [
        "",
        "HUNTER2",
        base64.b64encode(b"HUNTER2" * 5).decode(),
        base64.b64encode(bytes(range(31))).decode(),
        base64.b64encode(bytes(range(33))).decode(),
        base64.b64encode(bytes(32)).decode(),
        base64.b64encode(b"ab" * 16).decode(),
        bytes(range(32)).hex(),
        NEW.reveal() + "\n",
        NEW.reveal().rstrip("="),
        NEW.reveal()[:-2] + "F=",
        NEW.reveal()[:-4] + "\u0661\u0662\u0663=",
    ],
    ids=["empty", "word", "35", "31", "33", "zeros", "ab", "hex", "line", "cut", "bits", "digits"],
)
def test_what_is_no_key_is_refused_and_not_shown(key: str) -> None:
    """The error says which of them it is, whose setting, and how to make one; nothing of the key is in it."""
    with pytest.raises(ConfigurationError) as caught:
        Seal([OLD, Secret(key)])
    (fault,) = caught.value.faults
    assert fault == (
        "encryption_keys (CTX_ENCRYPTION_KEYS): key 2 is not 32 random bytes in base64, "
        "as `openssl rand -base64 32` prints them"
    )


def test_a_key_that_is_there_twice_is_refused() -> None:
    """However it is spelled: whoever takes away the old one would take away the new one too."""
    twice = Secret(base64.b64encode(b"\xff\xfe" + bytes(range(30))).decode())
    spelled = Secret(twice.reveal().translate(str.maketrans("+/", "-_")))
    assert spelled != twice
    assert key_faults([twice]) == key_faults([spelled]) == []
    assert [fault.partition(": ")[2] for fault in key_faults([OLD, twice, Secret("x"), spelled])] == [
        "key 3 is not 32 random bytes in base64, as `openssl rand -base64 32` prints them",
        "key 4 is key 2 again; each has to be another one",
    ]


def test_a_seal_shows_no_key() -> None:
    """It is known by what its keys are called in Redis, where everybody may read that."""
    assert repr(SEAL) == f"<Seal: keys {_parts(_packed())[2].hex()}, {_parts(_packed(codec=_codec(OLD)))[2].hex()}>"
    for key in (OLD, NEW):
        decoded = base64.b64decode(key.reveal())
        shown = f"{SEAL!r} {SEAL.__dict__} {CODEC.__dict__}"
        assert not any(text in shown for text in (key.reveal(), decoded.hex(), repr(decoded)))
