"""Trimaps from masks, readers and RECIST marks: lesion, background, and where matting decides."""
