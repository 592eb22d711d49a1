"""The what-if page: sliders for the limits of a job, and what they do to the best plan."""
