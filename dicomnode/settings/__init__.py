"""The configuration: YAML -> frozen Settings. Every fault is told with its place and key.

models say what there is, reading reads it, secrets fills in what stands elsewhere, faults tells
what is wrong, places makes folders absolute, schema describes it to editors.
"""

# Names repeated: so a type checker knows them for this package's own.
from dicomnode.domain.destinations import Destination as Destination
from dicomnode.settings.models import WEIGHTS_ENVIRONMENT as WEIGHTS_ENVIRONMENT
from dicomnode.settings.models import Peer as Peer
from dicomnode.settings.models import Send as Send
from dicomnode.settings.models import Settings as Settings
from dicomnode.settings.reading import DEFAULT_NAME as DEFAULT_NAME
from dicomnode.settings.reading import ENVIRONMENT as ENVIRONMENT
from dicomnode.settings.reading import find_config as find_config
from dicomnode.settings.reading import load as load
from dicomnode.settings.reading import parse as parse
from dicomnode.settings.reading import where as where
