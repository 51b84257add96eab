"""On both databases, as the tests of what is kept."""

from tests.app.storage.conftest import database, open_database, postgres

__all__ = ["database", "open_database", "postgres"]
