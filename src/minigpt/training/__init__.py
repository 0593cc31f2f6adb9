"""Training: the LightningModule, its optimizers and schedules, the trainer and what it reports."""
