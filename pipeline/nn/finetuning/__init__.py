"""Fine-tuning: a task, where its inputs come from, the steps, the loop around them, and what is kept of it."""
