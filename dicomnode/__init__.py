"""A DICOM node that returns every CT series it is sent with its anatomy segmented."""

__version__ = "0.1.0"
