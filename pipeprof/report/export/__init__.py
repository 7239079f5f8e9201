"""Files for other programs: Perfetto, TensorBoard, tables."""
