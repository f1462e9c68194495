"""What stands in each section of a report: numbers as text, tables and plots."""
