"""Weights of models: fetched or imported, checked, converted, recorded, verified ever after."""
