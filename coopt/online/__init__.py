"""The controller and what it rests on: accounts, plans of a round, and the contract of all planners."""
