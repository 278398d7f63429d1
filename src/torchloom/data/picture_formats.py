"""Which formats of pictures are read: the one list for training, `predict` and `serve`."""

ENDINGS = {  # of files, by Pillow's name of their format; for EPS, which is none of them, it would start Ghostscript
    "PNG": [".apng", ".png"],
    "JPEG": [".jfi", ".jfif", ".jif", ".jpe", ".jpeg", ".jpg", ".mpo"],
    "WEBP": [".webp"],
    "GIF": [".gif"],
    "BMP": [".bmp"],
    "TIFF": [".tif", ".tiff"],
    "PPM": [".pbm", ".pfm", ".pgm", ".pnm", ".ppm"],
}
FORMATS = tuple(ENDINGS)
SUFFIXES = {ending for endings in ENDINGS.values() for ending in endings}
