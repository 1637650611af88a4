"""Sessions: they are their key's, end with it, and leave no token behind."""

from datetime import timedelta

from sqlalchemy import Engine, text

from steps import Steps
from store import keys, owners, sessions
from store.owners import LOCAL_IDENTITY
from store.session import now
from store.values import Scope


class Browser:
    """Of ``anna``, with a key and a session."""

    def __init__(self, steps: Steps, **options: object) -> None:
        self.steps = steps
        self.owner_id = steps.do(owners.create, "anna").owner_id
        self.key_id, _ = steps.do(keys.create, self.owner_id, name="a key", scopes=[Scope.SUBMIT], **options)
        self.token = steps.do(sessions.open_, self.key_id)

    def is_signed_in(self) -> bool:
        return self.steps.do(sessions.identify, self.token) is not None

    def end(self, column: str, table: str, database: Engine) -> None:
        """As if that were over since a second ago."""
        at = self.steps.do(now) - timedelta(seconds=1)
        with database.begin() as connection:
            connection.execute(
                text(f"UPDATE {table} SET {column} = :at"),  # noqa: S608 - two known names
                {"at": at.replace(tzinfo=None) if database.dialect.name == "sqlite" else at},
            )


class TestIdentity:
    def test_is_that_of_the_key(self, steps: Steps) -> None:
        browser = Browser(steps)

        known = steps.do(sessions.identify, browser.token)

        assert known is not None
        asking, use_is_stale = known
        assert (asking.owner, asking.owner_id, asking.key_id) == ("anna", browser.owner_id, browser.key_id)
        assert asking.scopes == {Scope.READ, Scope.SUBMIT}
        assert use_is_stale

    def test_is_nobodys_for_another_token(self, steps: Steps) -> None:
        browser = Browser(steps)

        for token in ("", "x" * 43, browser.token[:-1], browser.token + "x", browser.token.swapcase(), "é" * 43):
            assert steps.do(sessions.identify, token) is None

    def test_keeps_a_hash_and_never_the_token(self, steps: Steps, database: Engine) -> None:
        browser = Browser(steps)

        with database.begin() as connection:
            stored = str(connection.execute(text("SELECT * FROM sign_ins")).all())
        assert browser.key_id in stored
        assert browser.token not in stored


class TestEnd:
    def test_comes_with_a_sign_out_that_spares_the_others(self, steps: Steps) -> None:
        browser = Browser(steps)
        other = steps.do(sessions.open_, browser.key_id)

        steps.do(sessions.close, browser.token)

        assert not browser.is_signed_in()
        assert steps.do(sessions.identify, other) is not None

    def test_comes_with_the_revocation_of_the_key(self, steps: Steps) -> None:
        browser = Browser(steps)
        assert browser.is_signed_in()

        steps.do(keys.revoke, browser.key_id, LOCAL_IDENTITY)

        assert not browser.is_signed_in()

    def test_comes_with_the_rotation_of_the_key(self, steps: Steps) -> None:
        browser = Browser(steps)

        steps.do(keys.rotate, browser.key_id, LOCAL_IDENTITY)

        assert not browser.is_signed_in()

    def test_comes_with_the_expiry_of_the_key(self, steps: Steps, database: Engine) -> None:
        browser = Browser(steps)

        browser.end("expires_at", "api_keys", database)

        assert not browser.is_signed_in()

    def test_comes_by_itself(self, steps: Steps, database: Engine) -> None:
        browser = Browser(steps)

        browser.end("expires_at", "sign_ins", database)

        assert not browser.is_signed_in()


class TestSweep:
    def test_deletes_what_has_ended_and_nothing_else(self, steps: Steps, database: Engine) -> None:
        ended = Browser(steps)
        lasting_key, _ = steps.do(keys.create, ended.owner_id, name="another", scopes=[Scope.READ])
        lasting = steps.do(sessions.open_, lasting_key)
        steps.do(keys.revoke, ended.key_id, LOCAL_IDENTITY)

        steps.do(sessions.sweep)

        with database.begin() as connection:
            assert connection.execute(text("SELECT count(*) FROM sign_ins")).scalar() == 1
        assert steps.do(sessions.identify, lasting) is not None

        ended.end("expires_at", "sign_ins", database)
        steps.do(sessions.sweep)

        with database.begin() as connection:
            assert connection.execute(text("SELECT count(*) FROM sign_ins")).scalar() == 0
