"""Unequal devices: their profiles, which client is which, and what fits on them."""

from comigs.devices.assign import assign_devices, profile_of
from comigs.devices.profile import Profile, library, profiles_of

__all__ = ["Profile", "assign_devices", "library", "profile_of", "profiles_of"]
