"""The systems, a file each; base.py has the settings that they share."""
