"""The model: arrays in, arrays out. Knows nothing of DICOM, the network or the ledger."""
