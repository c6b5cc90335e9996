"""What a file is, by its first bytes, where it is no picture that can be read; and a PNG without
what is no pixel."""

import codecs
import io
import re
import zlib

# How the names of pictures end that are read.
PICTURES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".png", ".apng", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff",
    ".ppm", ".pgm", ".pbm", ".pnm", ".avif",
)  # fmt: skip
SUPPORTED = "JPEG, PNG, WebP, GIF, BMP, TIFF, PPM, AVIF"
_CONVERT = f"supported {SUPPORTED}: convert it to PNG or JPEG"
_FRAME = "take one picture out of it, as with `ffmpeg -i FILE -frames:v 1 frame.png`"
RAW = "a camera's RAW"
_UNPACK = "unpack it, and give one picture of it"
_BEGINS = {
    b"\0\0\0\x0cJXL ": "JPEG XL", b"\xff\x0a": "JPEG XL", b"\0\0\0\x0cjP": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000", b"II\xbc\x01": "JPEG XR", b"8BPS": "PSD", b"gimp xcf": "XCF (GIMP)",
    b"\0\0\1\0": "ICO", b"icns": "ICNS", b"P7\n": "PAM", b"DDS ": "DDS", b"qoif": "QOI", b"v/1\1": "OpenEXR",
    b"#?RADIANCE": "Radiance HDR", b"SIMPLE  =": "FITS", b"AT&TFORM": "DjVu", b"\xd7\xcd\xc6\x9a": "WMF",
    b"%PDF": "PDF", b"%!PS": "EPS", b"FUJIFILMCCD-RAW": RAW, b"IIRO": RAW, b"IIRS": RAW, b"MMOR": RAW,
    b"IIU\0": RAW, b"FOVb": RAW, b"II*\0\x10\0\0\0CR": RAW, b"\x93NUMPY": "NumPy array (.npy)",
    b"\x89HDF": "HDF5", b"\0\0\2\0\0\0\0\0": "TGA", b"\0\0\3\0\0\0\0\0": "TGA",
    b"\0\0\n\0\0\0\0\0": "TGA", b"\0\0\2\0": "CUR", b"\n\2\1": "PCX", b"\n\3\1": "PCX", b"\n\5\1": "PCX",
    b"\1\xda": "SGI", b"PF\n": "PFM", b"/* XPM */": "XPM", b"#define ": "XBM", b"\x8aMNG": "MNG", b"BPG\xfb": "BPG",
    b"#?RGBE": "Radiance HDR", b"FLIF": "FLIF", b"\xabKTX": "KTX", b"\xff\x10\xff\x50": "JPEG XS",
    b"\0\0\0\x0cJXS ": "JPEG XS",
}  # fmt: skip
_VIDEOS = {
    b"\x1a\x45\xdf\xa3": "WebM or Matroska video", b"FLV\1": "FLV video", b"OggS": "Ogg video",
    b"\0\0\1\xba": "MPEG video", b"\0\0\1\xb3": "MPEG video", b"0&\xb2u": "WMV video",
}  # fmt: skip
_PACKED = {
    b"PK\3\4": "ZIP", b"\x1f\x8b": "gzip", b"7z\xbc\xaf": "7z", b"Rar!": "RAR", b"BZh": "bzip2",
    b"\x28\xb5\x2f\xfd": "Zstandard", b"\xfd7zXZ": "xz",
}  # fmt: skip
_BRANDS = {
    b"hei": "HEIC", b"hev": "HEIC", b"mif": "HEIC", b"msf": "HEIC", b"crx": RAW,
    b"qt ": "QuickTime video",
}  # fmt: skip
_READ = (
    b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"BM", b"P1", b"P2", b"P3", b"P4", b"P5", b"P6",
)  # fmt: skip
_ODD_TIFF = "camera RAWs, colours in floating point, 64 bits, many channels"
# How files begin in base64, and text that can hardly be anything else.
_BASE64 = {"/9j/": "jpeg", "iVBORw0KGgo": "png", "R0lGOD": "gif", "UklGR": "webp"}
_LONG_BASE64 = re.compile(r"[A-Za-z0-9+/=\s_-]{1024,}")
_BLANK = b"\xef\xbb\xbf\r\n\t "


def base64_type(text: str) -> str:
    """The type of a picture's file that is written as base64, "jpeg", "png" where its beginning
    does not tell; empty for what may be a path."""
    if len(text) <= 80:
        return ""
    kind = next((kind for begin, kind in _BASE64.items() if text.startswith(begin)), "")
    return kind or ("png" if _LONG_BASE64.fullmatch(text[:4096]) else "")


def unsupported(kind: str) -> str:
    """What is said of a type that is known, and not read."""
    return f"unsupported type {kind}; {_CONVERT}"


def is_supported(head: bytes) -> bool:
    """Whether a file that begins with `head`, 32 bytes or more, is a picture of a type that is read. TIFF is not told:
    cameras' RAWs begin alike."""
    webp = head[:4] == b"RIFF" and head[8:12] == b"WEBP"
    return webp or head.startswith(_READ) or head[4:12] in (b"ftypavif", b"ftypavis")


def what_it_is(head: bytes) -> tuple[str, str]:
    """Why no picture was found in a file that begins with `head`, 1,024 bytes: the cause for
    counts, and the words with a remedy."""
    if not head:
        return "empty file", "is empty (0 bytes); copy or download it again"
    if not head.strip(b"\0"):
        return "damaged", "begins with zeros only, as a download that was stopped; get it again"
    size = int.from_bytes(head[:4], "big")  # of the box; behind the first its brands are a list
    if head[4:8] == b"ftyp" and (head[8:11] == b"avi" or b"avif" in head[16:size]):
        words = "damaged, or an AVIF that this Pillow cannot read: get it again, or convert it"
        return "damaged", f"{words} to PNG or JPEG"
    kind, remedy = _kind(head)
    if kind:
        return "unsupported type", f"unsupported type {kind}; {remedy}"
    if head[:4] in (b"II*\0", b"MM\0*"):
        words = f"damaged, or a TIFF of a kind that is not read ({_ODD_TIFF}): save it as 8-bit RGB"
        return "damaged", f"{words}, or get it again"
    is_text = all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in head)
    begins = f"damaged, or no picture ({'text that ' if is_text else ''}begins with {head[:8]!r})"
    if head.startswith(b"\xff\xd8\xff"):
        begins += ", or a JPEG of more than 8 bits"
    return _written(head) or ("damaged", f"{begins}; {_CONVERT}, or get it again")


def _kind(head: bytes) -> tuple[str, str]:
    """The type's name and a remedy; no name where it is not known."""
    if head[4:8] == b"ftyp":
        kind = _BRANDS.get(head[8:11], "MP4 video")
        return kind, _FRAME if kind.endswith("video") else _CONVERT
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return "AVI video", _FRAME
    if head[40:44] == b" EMF":
        return "EMF", _CONVERT
    if head[128:132] == b"DICM":
        return "DICOM", _CONVERT
    if head[257:262] == b"ustar":
        return "tar", _UNPACK
    for table, remedy in ((_BEGINS, _CONVERT), (_VIDEOS, _FRAME), (_PACKED, _UNPACK)):
        for begin, kind in table.items():
            if head.startswith(begin):
                return kind, remedy
    return "", ""


def _written(head: bytes) -> tuple[str, str] | None:
    """The same of a file that holds text."""
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        head = head.decode("utf-16", "ignore").encode()
    text = head.lstrip(_BLANK)
    low = text.lower()
    if low.startswith(b"version https://git-lfs"):
        pointer = "is a git-lfs pointer, not the picture; run `git lfs pull` where it came from"
        return "git-lfs pointer", pointer
    if low.startswith(b"<!doctype html") or b"<html" in low:
        page = "looks like HTML: the server sent a web page, not the picture; download it again"
        return "web page", page
    if low.startswith(b"<") and b"<svg" in low:
        return "unsupported type", f"unsupported type SVG; {_CONVERT}"
    if text[:16].decode("latin-1").startswith(tuple(_BASE64)) or low.startswith(b"data:image/"):
        words = "is base64 text, not the picture's bytes; decode it first, as with `base64 -d`"
        return "unsupported type", words
    if low.startswith((b"<?xml", b"<error", b"{", b"[")):
        kind = "XML" if text[:1] == b"<" else "JSON"
        return "web page", f"is {kind} text, as a server's error is, no picture; download it again"
    return None


def bare_png(file) -> io.BytesIO | None:
    """A PNG with its pixels alone: header, palette, transparency, EXIF and data, without text,
    profiles and what else may be damaged, or more than Pillow will unpack. None where the open file
    is no PNG."""
    file.seek(0)
    out = io.BytesIO(file.read(8))
    if out.getvalue() != b"\x89PNG\r\n\x1a\n":
        return None
    out.seek(8)
    while len(head := file.read(8)) == 8:
        kind = head[4:]
        size = int.from_bytes(head[:4], "big") + 4  # with the checksum
        if kind in (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"):
            out.write(head + file.read(size))
        elif kind == b"eXIf":
            data = file.read(size)
            if zlib.crc32(kind + data[:-4]).to_bytes(4, "big") == data[-4:]:
                out.write(head + data)
        else:
            file.seek(size, io.SEEK_CUR)
    out.seek(0)
    return out
