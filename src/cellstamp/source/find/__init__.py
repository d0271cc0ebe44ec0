"""Which elements are meant, where they lie and whether they fit together; runs in the caller, before the work."""
