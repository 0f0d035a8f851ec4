"""Reports for people: tables, lines and pictures of records, scores and tallies."""
