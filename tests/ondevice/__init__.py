"""The clients for devices."""
