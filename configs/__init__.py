"""Configures the systems, one file for each; base.py has the settings that they share."""
