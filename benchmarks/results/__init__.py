"""What measurements leave behind: complete records, statistics over seeds, tables for the terminal, the report."""
