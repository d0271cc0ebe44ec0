"""SpatialData -> pixels: the only room that knows spatialdata, zarr stores and image files."""
