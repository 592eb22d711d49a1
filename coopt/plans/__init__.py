"""The answer: a plan, what it uses, its certificate and proof, and how it is shown."""
