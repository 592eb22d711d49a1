"""What a plan is judged by: the protocol of an objective, its monotone form, and the bounds."""
