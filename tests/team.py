"""A server with keys, and the people who have some."""

from fastapi import FastAPI
from fastapi.testclient import TestClient

from api.app import create_app
from store import keys, owners
from store.errors import OwnerNotFoundError
from store.session import engine, transaction
from store.settings import Settings
from store.values import Limits, Place, Scope

NO_LIMITS = Limits()
URL, ADDRESS = "http://vitpress.test", "192.0.2.7"  # of the server, and of those who ask


class Team:
    """Owners are made when they are first named. Clients come from an address elsewhere."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings.model_copy(update={"auth": "keys"})
        self.app: FastAPI = create_app(self.settings)
        self._engine = engine(settings)
        self._client = self._client_at(ADDRESS)

    def __enter__(self) -> "Team":
        self._client.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._client.__exit__()

    def place(self, owner: str, limits: Limits = NO_LIMITS) -> Place:
        """``limits``: of an owner that is made."""
        with transaction(self._engine) as session:
            try:
                return owners.place(session, owners.find(session, owner))
            except OwnerNotFoundError:
                return owners.create(session, owner, limits)

    def key(self, owner: str, scope: Scope) -> str:
        place = self.place(owner)
        with transaction(self._engine) as session:
            return keys.create(session, place.owner_id, name="a key", scopes=[scope])[1]

    def client(self, owner: str, scope: Scope = Scope.SUBMIT) -> TestClient:
        return self.with_key(self.key(owner, scope))

    def browser(self, owner: str, scope: Scope = Scope.SUBMIT) -> TestClient:
        """One in which that owner has signed in. It follows nothing by itself."""
        client = self.with_key(None)
        client.headers |= {"Accept": "text/html", "Origin": URL}
        client.follow_redirects = False
        assert client.post("/sign-in", data={"key": self.key(owner, scope)}).status_code == 303
        return client

    def with_key(self, key: str | None, address: str = ADDRESS) -> TestClient:
        client = self._client_at(address)
        client.app_state.update(self._client.app_state)  # of the one whose lifespan runs
        if key is not None:
            client.headers["Authorization"] = f"Bearer {key}"
        return client

    def _client_at(self, address: str) -> TestClient:
        return TestClient(self.app, base_url=URL, raise_server_exceptions=False, client=(address, 50000))
