"""SpatialData -> pixels: the only folder that knows spatialdata, zarr stores and image files."""
