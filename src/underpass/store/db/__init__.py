"""The database: the truth about everything lasting (SQLite, PostgreSQL, MySQL/MariaDB)."""

# Whoever imports any table has all of them in ``Base.metadata``; migrations compare with that.
from underpass.store.db import mapping_models as mapping_models
from underpass.store.db import offer_models as offer_models
from underpass.store.db import quota_models as quota_models
