"""jobber: a distributed job queue for SQL read queries."""

__version__ = "0.1.0"
