"""How often, and for how long, a state machine of orders is told its stories."""

from hypothesis import HealthCheck, settings

QUIET = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]


def often(examples: int, steps: int) -> settings:
    """So many stories of so many steps each, on however busy a machine."""
    return settings(
        max_examples=examples, stateful_step_count=steps, deadline=None, suppress_health_check=QUIET, print_blob=True
    )
