#!/usr/bin/python3
"""Writes digits.png and digits_labels.txt from the copy of the digits in Debian's python3-sklearn.

Both files are in the repository, so nobody needs to run this again; it records where they came from.
The package conflicts with libboost1.81-dev, so unpack it instead of installing it:

    apt-get download python3-sklearn
    dpkg -x python3-sklearn_*.deb unpacked
    ./unpack_digits.py unpacked/usr/lib/python3/dist-packages/sklearn/datasets/data/digits.csv.gz

Needs python3-numpy and python3-opencv.
"""
import pathlib
import sys

import cv2
import numpy as np

COLUMNS = 50  # tiles per row of the sheet
HERE = pathlib.Path(__file__).resolve().parent


def main():
    rows = np.loadtxt(sys.argv[1], delimiter=",").astype(int)  # 64 pixels of 0..16, then the label
    pixels, labels = rows[:, :64], rows[:, 64]
    assert rows.shape == (1797, 65) and pixels.min() == 0 and pixels.max() == 16

    tiles = ((pixels * 255 + 8) // 16).astype(np.uint8)  # 0..16 -> 0..255, rounded
    blank = -len(tiles) % COLUMNS
    tiles = np.concatenate([tiles, np.zeros((blank, 64), np.uint8)])
    sheet = tiles.reshape(-1, COLUMNS, 8, 8).swapaxes(1, 2).reshape(-1, COLUMNS * 8)
    cv2.imwrite(str(HERE / "digits.png"), sheet, [cv2.IMWRITE_PNG_COMPRESSION, 9])
    (HERE / "digits_labels.txt").write_text("".join(f"{label}\n" for label in labels))

    back = cv2.imread(str(HERE / "digits.png"), cv2.IMREAD_GRAYSCALE)
    back = back.reshape(-1, 8, COLUMNS, 8).swapaxes(1, 2).reshape(-1, 64)[: len(pixels)].astype(int)
    assert np.array_equal((back * 16 + 127) // 255, pixels), "the scaling must lose nothing"
    print(f"{len(labels)} digits, sheet of {sheet.shape[1]} x {sheet.shape[0]} pixels")


if __name__ == "__main__":
    main()
