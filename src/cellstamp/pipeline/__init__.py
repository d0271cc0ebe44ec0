"""The classes a user meets, in the shape scportrait users know."""
