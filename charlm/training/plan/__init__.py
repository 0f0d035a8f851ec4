"""The planner: sizes, speed, memory and expected loss of a training."""
