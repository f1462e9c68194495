"""What could make a score on a corpus too good: leaks across the parts, and confounds."""
