"""Quotas: who asks pays, refusals name the numbers, and counters return to nothing."""

from __future__ import annotations

import random

import pytest

from sbe import errors
from sbe.daemon.config import PolicyConfig, Quota, QuotaOverride
from sbe.daemon.policy import (
    COUNTERS,
    Accounts,
    Charge,
    Peer,
    Policy,
    descriptors_for_clients,
    descriptors_needed,
)

QUOTA = Quota(
    bytes=1000, areas=3, channels=2, contexts=1, in_flight=64, max_area_bytes=500, connections=2
)


def test_quota_exhausted_names_used_asked_and_limit():
    accounts = Accounts()
    accounts.charge(7, QUOTA, bytes=900)
    with pytest.raises(errors.OutOfResources) as caught:
        accounts.charge(7, QUOTA, bytes=101)
    assert str(caught.value) == (
        "quota bytes: user 7 may hold 1000 bytes of memory, has 900 and asks for 101 more"
    )


def test_what_can_never_be_had_is_permission_denied():
    with pytest.raises(errors.PermissionDenied, match=r"quota areas: .* 3 areas, has 0 .* 4 more"):
        Accounts().charge(7, QUOTA, areas=4)


def test_area_too_large_is_permission_denied():
    Policy.check_area(QUOTA, 500)
    with pytest.raises(errors.PermissionDenied, match=r"max_area_bytes: .* 501 .* limit is 500"):
        Policy.check_area(QUOTA, 501)


def test_refused_charge_charges_nothing():
    accounts = Accounts()
    with pytest.raises(errors.PermissionDenied):
        accounts.charge(7, QUOTA, bytes=10, areas=1, channels=3)
    assert accounts.used == {}


def test_users_do_not_pay_for_each_other():
    accounts = Accounts()
    accounts.charge(7, QUOTA, areas=3)
    others = accounts.charge(8, QUOTA, areas=3)
    with pytest.raises(errors.OutOfResources):
        accounts.charge(7, QUOTA, areas=1)
    others.settle(areas=2)
    assert accounts.used == {7: {"areas": 3}, 8: {"areas": 2}}
    others.release()
    assert accounts.used == {7: {"areas": 3}}


def test_release_twice_changes_nothing():
    accounts = Accounts()
    kept = accounts.charge(7, QUOTA, areas=1)
    gone = accounts.charge(7, QUOTA, areas=2, bytes=5)
    gone.release()
    gone.release()
    assert accounts.used == {7: {"areas": 1}}
    kept.release()
    assert accounts.used == {}


def test_settled_charge_releases_what_was_settled():
    accounts = Accounts()
    charge = accounts.charge(7, QUOTA, bytes=990)
    charge.settle(bytes=1500)
    assert accounts.usage(7)["bytes"] == 1500
    charge.release()
    assert accounts.used == {}


def test_negative_charge_is_a_bug():
    with pytest.raises(ValueError, match="-1 bytes"):
        Accounts().charge(7, QUOTA, bytes=-1)


def test_random_charges_end_at_zero():
    seed = random.randrange(2**32)
    print("seed", seed)
    choose = random.Random(seed)
    accounts = Accounts()
    held: list[Charge] = []
    expected = {uid: dict.fromkeys(COUNTERS, 0) for uid in (1, 2, 3)}
    refused = 0
    for _ in range(20_000):
        if held and choose.random() < 0.5:
            held.pop(choose.randrange(len(held))).release()
            continue
        amounts = {counter: choose.randrange(4) for counter in choose.sample(COUNTERS, 2)}
        try:
            held.append(accounts.charge(choose.choice((1, 2, 3)), QUOTA, **amounts))
        except errors.Error:
            refused += 1
        for uid in expected:
            for counter, amount in accounts.usage(uid).items():
                assert 0 <= amount <= getattr(QUOTA, counter)
    assert refused
    for charge in held:
        charge.release()
    assert accounts.used == {}


def test_own_entry_goes_before_groups_and_groups_before_default():
    policy = Policy(
        PolicyConfig.model_validate(
            {
                "default": {"areas": 1, "channels": 1, "contexts": 1},
                "gid": {"10": {"areas": 5, "channels": 6}, "11": {"areas": 9}},
                "uid": {"1000": {"areas": 2}},
            }
        )
    )
    own = policy.quota(Peer(1, 1000, 10, (11,)))
    assert (own.areas, own.channels, own.contexts) == (2, 6, 1)
    member = policy.quota(Peer(1, 1001, 99, (10, 11)))
    assert (member.areas, member.channels) == (9, 6)
    other = policy.quota(Peer(1, 1001, 99))
    assert (other.areas, other.channels) == (1, 1)


def test_the_most_generous_word_of_groups_counts():
    policy = Policy(
        PolicyConfig.model_validate(
            {"gid": {"10": {"restart": "never"}, "11": {"restart": "always"}}}
        )
    )
    assert policy.quota(Peer(1, 1000, 10)).restart == "never"
    assert policy.quota(Peer(1, 1000, 10, (11,))).restart == "always"
    assert policy.quota(Peer(1, 1000, 12)).restart == "alone"


def test_raw_messages_are_for_who_is_named():
    policy = Policy(
        PolicyConfig.model_validate(
            {
                "gid": {"10": {"raw": ["dma", "sdb"]}, "11": {"raw": ["log"]}},
                "uid": {"1001": {"raw": []}},
            }
        )
    )
    member = policy.quota(Peer(1, 1000, 10, (11,)))
    for endpoint in ("dma", "sdb", "log"):
        policy.check_raw(member, 1000, endpoint)
    for peer in (Peer(1, 1000, 12), Peer(1, 1001, 10)):
        with pytest.raises(errors.PermissionDenied, match=r"takes raw = \['dma'\] under"):
            policy.check_raw(policy.quota(peer), peer.uid, "dma")


def test_quota_and_override_have_the_same_keys():
    assert list(Quota.model_fields) == list(QuotaOverride.model_fields)
    assert set(Quota.model_fields) == {*COUNTERS, "max_area_bytes", "power", "restart", "raw"}


def test_descriptors_are_shared_where_there_are_few():
    accounts = Accounts(descriptors_max=80)
    quota = Quota()
    held = [accounts.charge(1, quota, channels=1) for _ in range(60 // 7)]
    with pytest.raises(errors.OutOfResources, match="a quarter of them for users who hold few"):
        accounts.charge(1, quota, channels=1)
    accounts.charge(1, quota, bytes=1000)  # takes none
    others = [accounts.charge(2, quota, channels=1), accounts.charge(3, quota, channels=1)]
    with pytest.raises(errors.OutOfResources):
        accounts.charge(4, quota, channels=2)
    for charge in [*held, *others]:
        charge.release()
    [accounts.charge(4, quota, areas=10), accounts.charge(4, quota, areas=10)]


def test_the_limit_that_a_quota_takes_is_enough_for_it():
    quota = Quota(areas=100, channels=10, contexts=4, connections=8)
    accounts = Accounts(descriptors_max=descriptors_for_clients(descriptors_needed(quota)))
    accounts.charge(1, quota, areas=100, channels=10, contexts=4, connections=8)
    accounts.charge(2, quota, connections=1, contexts=1, channels=1)
