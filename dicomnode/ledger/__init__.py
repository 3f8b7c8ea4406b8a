"""Facts: SQLAlchemy Core tables, the queries of the roles, and the migrations of the schema.

SQLite and PostgreSQL. A state and its event row change in one transaction; invariants are unique
indexes, fences are WHERE clauses. No bytes, no network, no decisions: those are the domain's.
"""

from dicomnode.ledger.core import Ledger, Transaction

__all__ = ["Ledger", "Transaction"]
