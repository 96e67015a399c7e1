"""What holds for all tests."""

from hypothesis import settings

settings.register_profile("steady", deadline=None)  # the machine may be busy otherwise
settings.load_profile("steady")
