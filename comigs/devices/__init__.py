"""Unequal devices: their profiles, which client is which, and what fits on them."""

from comigs.devices.assign import assign_devices, device_classes, profile_of
from comigs.devices.profile import Profile, library, profiles_of

__all__ = ["Profile", "assign_devices", "device_classes", "library", "profile_of", "profiles_of"]
