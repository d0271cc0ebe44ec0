"""Names of the columns that can have the ids of cells, in tables, files and shapes: the only place for them."""

from __future__ import annotations

LABEL_COLUMNS = ("cell_labels", "cell_label", "label_id", "label", "scportrait_cell_id")
"""Columns with a cell's id in the mask, in tables whose rows annotate something else, like circles."""

NAME_COLUMNS = ("cell_id", "barcode")
"""Columns with a cell's name in text, in tables whose instance key does not have it."""

SHAPE_COLUMNS = ("cell_id", "cell_ID", "CellID", "cell")
"""Columns of nuclei, and of tables, that name a cell given as a shape."""

POLYGON_COLUMNS = (*SHAPE_COLUMNS, "EntityID", "id")
"""Columns with the ids of polygons, in files and frames whose index only numbers the rows."""

GEOJSON_MEMBERS = ("cell", "cell_id", "id")
"""Members of a GeoJSON feature with the id of a cell: Baysor and Proseg, Xenium, GeoJSON itself."""

CSV_COLUMNS = (
    "scportrait_cell_id",
    "cell_id",
    "instance_id",
    "label",
    "cell_label",
    "cell_labels",
    "object_number",
    "object_id",
    "object",
    "entity_id",
    "barcode",
    "cell",
)
"""Columns of a CSV file, compared without case and separators: CellID, Cell ID and cell_id are one name."""
