"""Whether keys keep users apart, hold no name, and stay in one slot of a cluster."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ctxmiddleware.cache.redis.keys import BUCKETS, KeySpace

SPACE = KeySpace("default", b"12345678")


def _tag(key: str) -> str:
    return key[key.index("{") : key.index("}") + 1]


@given(st.text(alphabet=st.characters()), st.text(alphabet=st.characters()))
def test_a_user_s_keys_share_a_slot_and_hold_no_name(partition: str, name: str) -> None:
    """The keys of one user have one hash tag, and the name is not in them, whatever characters it has."""
    keys = SPACE.of((partition, name))
    assert len({_tag(key) for key in keys}) == 1
    assert (keys.everyone, keys.everyone_mark) in SPACE.everyone()
    assert len(name) < 4 or not any(name in key for key in keys)
    assert all(key.isascii() for key in keys)


def test_generations_belong_to_the_name_and_values_to_both() -> None:
    """Two partitions share a name's generation and never its value."""
    one, two = SPACE.of(("one", "ada")), SPACE.of(("two", "ada"))
    assert (one.generation, one.mark) == (two.generation, two.mark)
    assert one.value != two.value


def test_namespaces_and_shapes_are_apart() -> None:
    """Two applications on one Redis share no key, and two types no value."""
    other, shape = KeySpace("other", b"12345678"), KeySpace("default", b"87654321")
    assert not set(other.of(("", "ada"))) & set(SPACE.of(("", "ada")))
    assert shape.of(("", "ada")).value != SPACE.of(("", "ada")).value
    assert shape.of(("", "ada")).generation == SPACE.of(("", "ada")).generation


def test_everyone_has_a_key_in_each_bucket_and_names_use_them_all() -> None:
    """Forgetting everyone writes two keys in each bucket, and each is a bucket that users fall into."""
    everyone = SPACE.everyone()
    assert len(set(everyone)) == BUCKETS == 256
    assert {SPACE.of(("", str(number))).everyone for number in range(5000)} == {
        generation for generation, _ in everyone
    }


def test_the_server_s_name_is_kept_for_each_namespace_apart_and_under_no_key_of_a_user() -> None:
    """Two applications on one Redis renew their generations apart, and no name can be anybody's generation."""
    name, mark = SPACE.incarnation()
    assert name != mark
    assert _tag(name) == _tag(mark) == _tag(SPACE.everyone()[0][0])
    assert not {name, mark} & {key for pair in SPACE.everyone() for key in pair}
    assert not set(SPACE.incarnation()) & set(KeySpace("other", b"12345678").incarnation())
    assert SPACE.incarnation() == KeySpace("default", b"another shape").incarnation()


def test_tenants_of_one_address_share_its_generation_and_nothing_else() -> None:
    """The address is what is invalidated; a value and a lease belong to a tenant, and no key tells who either is."""
    space = KeySpace("n", b"shape")
    keys = [space.of((tenant, "ada@example.com")) for tenant in ("", "acme", "umbrella")]
    assert len({each.generation for each in keys}) == 1
    assert len({each.value for each in keys}) == len({each.lease for each in keys}) == len(keys)
    assert not any(text in part for each in keys for part in each for text in ("@", "acme", "umbrella"))
