"""What a plan is judged by: the protocol of an objective, bounds with their monotone form, the forecast."""
