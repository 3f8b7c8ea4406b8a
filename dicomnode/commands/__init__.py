"""The commands, by what they are for; `dicomnode.cli` puts them together.

No role, database or model is loaded before the command that needs it runs.
"""
