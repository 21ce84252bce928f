"""What was submitted, and what was answered: pay once, lose nothing."""
