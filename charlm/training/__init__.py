"""Training: optimisers and schedules, planning a run, the loop itself."""
