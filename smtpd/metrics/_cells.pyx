# Counter cells in shared memory; _cells.pyi is the documented face.
