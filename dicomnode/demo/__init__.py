"""The demonstration: an invented patient, a loopback archive, and the node between them."""
