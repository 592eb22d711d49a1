"""What a plan is judged by: the protocol of an objective, the bounds with their monotone form, the forecast."""
