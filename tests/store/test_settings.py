from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from store.settings import Settings


class TestDefaults:
    def test_everything_lives_in_the_data_directory(self, tmp_path: Path) -> None:
        settings = Settings(data_dir=tmp_path)
        assert settings.database_url == f"sqlite:///{tmp_path}/vitpress.db"
        assert settings.blob_url == f"file://{tmp_path}/blobs"

    def test_the_samples_are_the_ones_beside_the_package(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("VITPRESS_SAMPLES_DIR", raising=False)
        assert (Settings().samples_dir / "train.py").exists()


class TestTheEnvironment:
    def test_urls_are_all_it_takes_to_grow_up(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("VITPRESS_DATABASE_URL", "postgresql://db/vitpress")
        monkeypatch.setenv("VITPRESS_BROKER_URL", "redis://broker/0")
        monkeypatch.setenv("VITPRESS_BLOB_URL", "s3://bucket/prefix")
        settings = Settings()
        assert settings.database_url == "postgresql+psycopg://db/vitpress"
        assert (settings.broker_url, settings.blob_url) == ("redis://broker/0", "s3://bucket/prefix")

    def test_a_lease_too_short_for_its_heartbeats_is_refused(self) -> None:
        with pytest.raises(ValidationError, match="two heartbeats"):
            Settings(lease_seconds=8, heartbeat_seconds=4)

    def test_secrets_do_not_show(self) -> None:
        assert "hush" not in repr(Settings(s3_secret_access_key=SecretStr("hush")))
