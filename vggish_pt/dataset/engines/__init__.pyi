from .local import local_outcomes as local_outcomes
from .ray_engine import outcomes_on_ray as outcomes_on_ray
