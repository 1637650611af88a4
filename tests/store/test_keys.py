"""Keys: what is kept of them, who may make, end and replace which, and that somebody can always administer."""

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, text

from steps import Steps, at_once
from store import keys, owners
from store.errors import KeyEndedError, KeyNotFoundError, LastAdminKeyError, ScopeError
from store.owners import LOCAL, LOCAL_IDENTITY
from store.session import now
from store.values import Identity, Scope

HOUR = timedelta(hours=1)


class Keyring:
    """Makes keys and asks with them. ``anna`` and ``bert`` are owners."""

    def __init__(self, steps: Steps) -> None:
        self.steps = steps
        self.owners = {name: steps.do(owners.create, name).owner_id for name in ("anna", "bert")}

    def make(self, owner: str, scope: Scope, **options: Any) -> tuple[str, str]:
        """The id, and the whole key."""
        return self.steps.do(keys.create, self.owners[owner], name="a key", scopes=[scope], **options)

    def asking(self, owner: str, scope: Scope, **options: Any) -> Identity:
        return self.identity(self.make(owner, scope, **options)[1])

    def identity(self, key: str) -> Identity:
        return self.authenticate(key)[0]

    def authenticate(self, key: str) -> tuple[Identity, bool]:
        return self.steps.do(keys.authenticate_each, [key])[key]

    def opens(self, key: str) -> bool:
        return key in self.steps.do(keys.authenticate_each, [key])


@pytest.fixture
def ring(steps: Steps) -> Keyring:
    return Keyring(steps)


class TestCreating:
    def test_keeps_a_hash_and_never_the_secret(self, ring: Keyring, database: Engine) -> None:
        _, key = ring.make("anna", Scope.READ)
        with database.begin() as connection:
            stored = str(connection.execute(text("SELECT * FROM api_keys")).all())
        _, prefix, secret = key.split("_", 2)
        assert prefix in stored
        assert secret not in stored
        assert len(secret) == 43

    def test_a_key_may_do_what_its_scope_includes(self, ring: Keyring) -> None:
        assert ring.asking("anna", Scope.READ).scopes == {Scope.READ}
        assert ring.asking("anna", Scope.SUBMIT).scopes == {Scope.READ, Scope.SUBMIT}
        assert ring.asking("anna", Scope.ADMIN).scopes == set(Scope)

    def test_nobody_makes_a_key_that_may_more_than_the_own(self, ring: Keyring) -> None:
        with pytest.raises(ScopeError) as refused:
            ring.make("anna", Scope.ADMIN, asking=ring.asking("anna", Scope.SUBMIT))
        assert refused.value.scope == Scope.ADMIN

    def test_no_key_outlives_the_one_that_made_it(self, ring: Keyring, steps: Steps) -> None:
        end = steps.do(now) + HOUR
        asking = ring.asking("anna", Scope.SUBMIT, expires_at=end)
        for wanted in (None, end + HOUR):
            key_id, _ = ring.make("anna", Scope.READ, asking=asking, expires_at=wanted)
            assert steps.do(keys.get, key_id, asking).expires_at == end


class TestAuthenticating:
    @pytest.mark.parametrize("given", ["", "vp_", "vp_0123456789ab_" + "a" * 43, "x" * 5_000, "vp_\0", "Bearer"])
    def test_what_is_no_key_is_refused(self, ring: Keyring, given: str) -> None:
        assert not ring.opens(given)

    def test_the_secret_counts_not_the_prefix(self, ring: Keyring) -> None:
        _, key = ring.make("anna", Scope.READ)
        assert ring.opens(key)
        assert not ring.opens(key[:-1] + ("A" if key[-1] != "A" else "B"))

    def test_an_expired_key_is_refused(self, ring: Keyring, steps: Steps) -> None:
        _, key = ring.make("anna", Scope.READ, expires_at=steps.do(now))
        assert not ring.opens(key)

    def test_a_use_is_noted_once_a_minute(self, ring: Keyring, steps: Steps) -> None:
        key_id, key = ring.make("anna", Scope.READ)
        asking, is_stale = ring.authenticate(key)
        assert is_stale
        assert steps.do(keys.get, key_id, asking).last_used_at is None
        steps.do(keys.note_use, asking.key_id)
        assert ring.authenticate(key)[1] is False
        assert steps.do(keys.get, key_id, asking).last_used_at is not None


class TestSeeing:
    def test_pages_have_the_own_keys_from_the_newest_with_those_that_ended(self, ring: Keyring, steps: Steps) -> None:
        ids = [ring.make("anna", Scope.READ)[0] for _ in range(3)]
        ring.make("bert", Scope.READ)
        steps.do(keys.revoke, ids[1], LOCAL_IDENTITY)
        first = steps.do(keys.list_, ring.owners["anna"], limit=2)
        second = steps.do(keys.list_, ring.owners["anna"], limit=2, cursor=first.next_cursor)
        assert [view.id for view in (*first.items, *second.items)] == ids[::-1]
        assert second.next_cursor is None
        assert [view.revoked_at is not None for view in first.items] == [False, True]

    @pytest.mark.parametrize("scope", [Scope.READ, Scope.SUBMIT])
    def test_another_owner_s_key_is_not_there(self, ring: Keyring, steps: Steps, scope: Scope) -> None:
        key_id, key = ring.make("anna", Scope.READ)
        asking = ring.asking("bert", scope)
        for step in (keys.get, keys.revoke, keys.rotate):
            with pytest.raises(KeyNotFoundError):
                steps.do(step, key_id, asking)
        assert ring.opens(key)

    def test_an_administrator_sees_every_owner_s(self, ring: Keyring, steps: Steps) -> None:
        key_id, _ = ring.make("anna", Scope.READ)
        view = steps.do(keys.get, key_id, ring.asking("bert", Scope.ADMIN))
        assert (view.owner, view.scopes, view.name) == ("anna", (Scope.READ,), "a key")


class TestRevoking:
    def test_ends_the_key_and_keeps_the_record(self, ring: Keyring, steps: Steps) -> None:
        key_id, key = ring.make("anna", Scope.READ)
        asking = ring.asking("anna", Scope.SUBMIT)
        first = steps.do(keys.revoke, key_id, asking)
        assert not ring.opens(key)
        assert first.revoked_at is not None
        assert steps.do(keys.revoke, key_id, asking) == first

    def test_a_member_cannot_end_an_administrator_s_key(self, ring: Keyring, steps: Steps) -> None:
        key_id, key = ring.make("anna", Scope.ADMIN)
        with pytest.raises(ScopeError):
            steps.do(keys.revoke, key_id, ring.asking("anna", Scope.SUBMIT))
        assert ring.opens(key)

    def test_the_last_admin_key_stays_unless_forced(self, ring: Keyring, steps: Steps) -> None:
        key_id, key = ring.make("anna", Scope.ADMIN)
        ring.make("bert", Scope.SUBMIT)
        ring.make("bert", Scope.ADMIN, expires_at=steps.do(now) + keys.LONGEST_OVERLAP)
        steps.do(keys.revoke, ring.make("bert", Scope.ADMIN)[0], LOCAL_IDENTITY)
        with pytest.raises(LastAdminKeyError):
            steps.do(keys.revoke, key_id, ring.identity(key))
        assert ring.opens(key)
        steps.do(keys.revoke, key_id, ring.identity(key), force=True)
        assert not ring.opens(key)

    def test_of_two_admin_keys_one_may_go(self, ring: Keyring, steps: Steps) -> None:
        key_id, _ = ring.make("anna", Scope.ADMIN)
        steps.do(keys.revoke, key_id, ring.asking("bert", Scope.ADMIN))

    def test_two_administrators_who_end_each_other_at_once_do_not_both_succeed(
        self, ring: Keyring, steps: Steps
    ) -> None:
        ids = [ring.make(owner, Scope.ADMIN)[0] for owner in ("anna", "bert")]
        refused: list[str] = []

        def revoke(index: int) -> None:
            try:
                steps.do(keys.revoke, ids[index], LOCAL_IDENTITY)
            except LastAdminKeyError:
                refused.append(ids[index])

        at_once(2, revoke)
        assert len(refused) == 1

    def test_one_in_its_overlap_does_not_count_as_another(self, ring: Keyring, steps: Steps) -> None:
        old, key = ring.make("anna", Scope.ADMIN)
        asking = ring.identity(key)
        new, _ = steps.do(keys.rotate, old, asking, overlap=HOUR)
        with pytest.raises(LastAdminKeyError):
            steps.do(keys.revoke, new, asking)


class TestRotating:
    def test_makes_a_successor_and_ends_the_old_one_at_once(self, ring: Keyring, steps: Steps) -> None:
        end = steps.do(now) + 2 * HOUR
        old_id, old = ring.make("anna", Scope.SUBMIT, expires_at=end)
        new_id, new = steps.do(keys.rotate, old_id, ring.identity(old))
        assert not ring.opens(old)
        view = steps.do(keys.get, new_id, ring.identity(new))
        assert (view.name, view.scopes, view.expires_at) == ("a key", (Scope.READ, Scope.SUBMIT), end)
        with pytest.raises(KeyEndedError):
            steps.do(keys.rotate, old_id, ring.identity(new))

    def test_with_an_overlap_both_open_for_a_while(self, ring: Keyring, steps: Steps) -> None:
        old_id, old = ring.make("anna", Scope.SUBMIT)
        _, new = steps.do(keys.rotate, old_id, ring.identity(old), overlap=HOUR)
        asking = ring.identity(new)
        assert ring.opens(old)
        end = steps.do(keys.get, old_id, asking).expires_at
        assert end is not None
        assert HOUR - timedelta(minutes=1) < end - steps.do(now) <= HOUR

    def test_the_overlap_never_prolongs_a_key(self, ring: Keyring, steps: Steps) -> None:
        end = steps.do(now) + HOUR
        old_id, old = ring.make("anna", Scope.SUBMIT, expires_at=end)
        asking = ring.identity(old)
        steps.do(keys.rotate, old_id, asking, overlap=2 * HOUR)
        assert steps.do(keys.get, old_id, asking).expires_at == end

    def test_nobody_takes_a_key_that_may_more_or_lasts_longer(self, ring: Keyring, steps: Steps) -> None:
        """The successor's secret is the asker's."""
        admin, lasting = ring.make("anna", Scope.ADMIN)[0], ring.make("anna", Scope.READ)[0]
        end = steps.do(now) + HOUR
        asking = ring.asking("anna", Scope.SUBMIT, expires_at=end)
        with pytest.raises(ScopeError):
            steps.do(keys.rotate, admin, asking)
        successor, _ = steps.do(keys.rotate, lasting, asking)
        assert steps.do(keys.get, successor, asking).expires_at == end


class TestTheFirstAdmin:
    def test_is_made_once_with_its_owner(self, ring: Keyring, steps: Steps) -> None:
        key = steps.do(keys.first_admin)
        assert key is not None
        assert (ring.identity(key).owner, ring.identity(key).scopes) == ("admin", frozenset(Scope))
        assert steps.do(keys.first_admin) is None

    def test_is_made_again_when_none_is_valid_any_more(self, ring: Keyring, steps: Steps) -> None:
        key = steps.do(keys.first_admin)
        assert key is not None
        asking = ring.identity(key)
        steps.do(keys.revoke, asking.key_id, asking, force=True)
        assert steps.do(keys.first_admin) is not None

    def test_a_further_one_may_be_of_any_owner(self, ring: Keyring, steps: Steps) -> None:
        assert ring.identity(steps.do(keys.further_admin, "local")).owner_id == LOCAL.owner_id
        assert ring.identity(steps.do(keys.further_admin, "carla")).owner == "carla"
