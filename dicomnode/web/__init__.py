"""The operator's page, its JSON API and the metrics: what the ledger says, for a browser.

Reads the ledger through `dicomnode.ledger` and results from the spool; every act goes through the
same functions as the commands. Loads no model: no torch, nnunetv2, SimpleITK or highdicom.
"""
