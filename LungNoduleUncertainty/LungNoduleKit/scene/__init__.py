"""Slicer's MRML nodes and the library's images, both ways. The only room where RAS becomes LPS."""
