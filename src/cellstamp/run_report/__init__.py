"""Write the HTML page about a run from values. This package opens no results and reads no pixels."""
