"""What holds for the whole fast ring."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# The ring runs in parallel on small machines: a slow example is no failure.
settings.register_profile("fast-ring", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("fast-ring")
