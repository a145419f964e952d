"""What steps an algorithm's weights and what samples from them: checks of optimizers, schedules and samplers."""
