"""A DICOM node that returns every CT series it is sent with its anatomy segmented."""

__version__ = "0.1.0"
IMPLEMENTATION_CLASS_UID = "2.25.253885616726618288217594610556809943687"
"""Of what this software sends and writes (PS3.7 D.3.3.2)."""
IMPLEMENTATION_VERSION_NAME = f"DICOMNODE_{__version__}"[:16]
