"""The database: the truth about everything lasting (SQLite, PostgreSQL, MySQL/MariaDB)."""
