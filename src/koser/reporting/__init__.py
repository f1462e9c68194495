"""What a reader gets: pictures, reports and comparisons of runs."""
