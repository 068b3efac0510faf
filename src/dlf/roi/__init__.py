"""Regions of interest: the parts of an image on which an encoder spends more.

`mask` reads what a caller says of a region, `detect` finds faces and text.  What becomes of it is in
`dlf.codec.region`.
"""
