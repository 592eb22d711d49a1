"""What a user can ask: one plan, many, trade-offs, sensitivities, cohorts and participants."""
