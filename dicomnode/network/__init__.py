"""DIMSE: the only importer of pynetdicom. Moves bytes and statuses, decides nothing."""
