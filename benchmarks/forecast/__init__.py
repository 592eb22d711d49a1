"""From a model and its data to the plan that trains it best: what the forecast picks, really trained."""
