"""Arrays, TIFF files and OME-Zarr images -> a project's store; runs before any extraction."""
