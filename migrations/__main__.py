"""``python -m migrations``: bring the database of the settings to the newest schema."""

from migrations.upgrade import upgrade
from store.session import engine
from store.settings import get_settings

upgrade(engine(get_settings()))
