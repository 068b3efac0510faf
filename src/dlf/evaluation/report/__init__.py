"""What people read: tables, plots, sheets, one HTML page; and numbers that others published."""
