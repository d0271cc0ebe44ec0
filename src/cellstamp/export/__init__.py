"""Write finished single-cell images as files for other programs, with a table of the cells."""
