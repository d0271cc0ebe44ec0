"""Find elements, check that they fit together, and choose cells; runs in the caller, before the extraction."""
