"""The configuration: YAML -> frozen Settings. Every fault is told with its place and key.

models say what there is, reading reads it, secrets fills in what stands elsewhere, faults tells
what is wrong, places makes folders absolute, schema describes it to editors.
"""

from dicomnode.domain.destinations import Destination
from dicomnode.settings.models import WEIGHTS_ENVIRONMENT, Peer, Send, Settings
from dicomnode.settings.reading import DEFAULT_NAME, ENVIRONMENT, find_config, load, parse, where

__all__ = [
    "DEFAULT_NAME",
    "ENVIRONMENT",
    "WEIGHTS_ENVIRONMENT",
    "Destination",
    "Peer",
    "Send",
    "Settings",
    "find_config",
    "load",
    "parse",
    "where",
]
