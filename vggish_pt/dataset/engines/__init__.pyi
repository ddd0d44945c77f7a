from .ray_engine import outcomes_on_ray as outcomes_on_ray
