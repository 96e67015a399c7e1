"""The local API."""
