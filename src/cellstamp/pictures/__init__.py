"""Draw pictures from arrays and names. Only this package draws; it opens no files and reads no pixels."""
