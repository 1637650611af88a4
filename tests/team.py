"""A server with keys, and the people who have some."""

from fastapi import FastAPI
from fastapi.testclient import TestClient

from api.app import create_app
from store import keys, owners
from store.errors import OwnerNotFoundError
from store.session import engine, transaction
from store.settings import Settings
from store.values import Place, Scope


class Team:
    """Owners are made when they are first named. Clients come from an address elsewhere."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings.model_copy(update={"auth": "keys"})
        self.app: FastAPI = create_app(self.settings)
        self._engine = engine(settings)
        self._client = TestClient(
            self.app, base_url="http://vitpress.test", raise_server_exceptions=False, client=("192.0.2.7", 50000)
        )

    def __enter__(self) -> "Team":
        self._client.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._client.__exit__()

    def place(self, owner: str) -> Place:
        with transaction(self._engine) as session:
            try:
                return owners.place(session, owners.find(session, owner))
            except OwnerNotFoundError:
                return owners.create(session, owner)

    def key(self, owner: str, scope: Scope) -> str:
        place = self.place(owner)
        with transaction(self._engine) as session:
            return keys.create(session, place.owner_id, name="a key", scopes=[scope])[1]

    def client(self, owner: str, scope: Scope = Scope.SUBMIT) -> TestClient:
        return self.with_key(self.key(owner, scope))

    def with_key(self, key: str | None, address: str = "192.0.2.7") -> TestClient:
        client = TestClient(
            self.app, base_url="http://vitpress.test", raise_server_exceptions=False, client=(address, 50000)
        )
        client.app_state.update(self._client.app_state)  # of the one whose lifespan runs
        if key is not None:
            client.headers["Authorization"] = f"Bearer {key}"
        return client
