"""What people look at: tables and lines from records, scores and tallies."""
