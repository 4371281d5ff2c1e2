"""Stands in for Colab's own module: Drive is a folder."""

import os


def mount(mountpoint):
    """Makes the folders that mounting Drive makes."""
    os.makedirs(os.path.join(mountpoint, "MyDrive"), exist_ok=True)
    print(f"Mounted at {mountpoint}")
