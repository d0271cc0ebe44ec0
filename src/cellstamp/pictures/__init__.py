"""Values -> pictures: the only room that draws. It takes arrays and names, and neither opens files nor reads pixels."""
